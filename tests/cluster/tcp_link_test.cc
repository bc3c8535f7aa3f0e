// Links to shards whose blocks and verbs take the tcp port: over a real server, in plaintext and
// encrypted, and what is not believed of a shard that says less than it should.

#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cluster/lanes/tcp/tcp_lane.h"
#include "cluster/lanes/tcp/tcp_sockets.h"
#include "proto/types/refusal.h"
#include "proto/wire/serving.h"
#include "proto/wire/spec.h"
#include "service/shard/shard_lanes.h"
#include "service/telemetry/metric_family.h"
#include "tests/cluster/mtls.h"
#include "tests/support/lane_ends.h"
#include "tests/support/loopback_shard.h"

namespace reprise::testing {
namespace {

class TcpLinkTest : public ::testing::TestWithParam<bool> {
 protected:
  TcpLinkTest() {
    if (GetParam()) {
      fleet_ = As(authority_, kFleet);
      tenant_ = As(authority_, kAcme);
    }
    shard_.emplace(LoopbackShard::Options{
        .configure = [this](shard::ShardServerOptions& serving, shard::ShardEngine& engine) {
          lanes_ = *shard::ShardLanes::Open({.view = false,
                                             .nccl = shard::NcclUse::kOff,
                                             .nccl_library = "",
                                             .gpu = std::nullopt,
                                             .tcp_encrypted = fleet_ != nullptr},
                                            engine);
          lanes_->AddTo(serving);
          serving.credentials = fleet_;
          serving.time_calls = true;
          if (fleet_ != nullptr) serving.access = FleetPolicy();
        }});
  }
  ~TcpLinkTest() override {
    shard_->server().Stop(absl::ZeroDuration());
    lanes_.reset();
  }
  absl::StatusOr<std::unique_ptr<cluster::ShardLink>> Connect(std::vector<LaneKind> lanes) {
    return cluster::ShardLink::Connect(
        {.address = shard_->address(), .lanes = std::move(lanes), .credentials = tenant_}, Soon());
  }
  shard::LaneUse Use() { return lanes_->use().tcp; }
  uint64_t Verbs() { return lanes_->use().tcp_verbs; }
  // Waits until verbs of this link take the port.
  void AwaitPort(cluster::ShardLink& link) {
    const uint64_t before = Verbs();
    const absl::Time end = Soon();
    while (Verbs() == before && absl::Now() < end) link.Lookup(SpecHandle(), {}, Soon()).status();
    ASSERT_GT(Verbs(), before) << "the port is not used";
  }
  // What `call` comes to. Fails the test unless it takes as many verbs on the port.
  template <typename Call>
  auto OnPort(uint64_t verbs, Call call) {
    const uint64_t before = Verbs();
    auto result = call();
    EXPECT_EQ(Verbs(), before + verbs);
    return result;
  }

  TestAuthority authority_;
  std::shared_ptr<const wire::Credentials> fleet_, tenant_;  // nullptr: plaintext
  std::unique_ptr<shard::ShardLanes> lanes_;
  std::optional<LoopbackShard> shard_;
};

TEST_P(TcpLinkTest, BlocksTakeThePort) {
  auto link = Connect({LaneKind::kTcp});
  ASSERT_TRUE(link.ok()) << link.status();
  EXPECT_EQ((*link)->lane().kind(), LaneKind::kTcp);
  const CacheSpec spec = SpecOf(65'536);
  const std::vector<BlockKey> keys = ChainNamed("by tcp", 9);
  EXPECT_EQ(*StoreChain(**link, spec, keys), 9u);
  EXPECT_EQ(*FetchChain(**link, spec, keys), 9u);
  EXPECT_EQ(Use().blocks_written, 9u);
  EXPECT_EQ(Use().blocks_read, 9u);
  EXPECT_EQ(Use().bytes_read, 9u * LayoutOf(spec).block_bytes);
  EXPECT_GE(lanes_->use().tcp_connections, 1u);
  // They end with the attachment.
  link->reset();
  const absl::Time end = absl::Now() + absl::Seconds(30);
  while (lanes_->use().tcp_connections > 0 && absl::Now() < end) std::this_thread::yield();
  EXPECT_EQ(lanes_->use().tcp_connections, 0u);
}

TEST_P(TcpLinkTest, UntilThePortWasReachedBlocksTakeGrpc) {
  const auto link = Connect({LaneKind::kTcp, LaneKind::kStream});
  ASSERT_TRUE(link.ok()) << link.status();
  const CacheSpec spec = SpecOf(65'536);
  const absl::Time end = absl::Now() + absl::Seconds(30);
  for (int i = 0; Use().blocks_read == 0; ++i) {
    ASSERT_LT(absl::Now(), end) << "the port is not used";
    const std::vector<BlockKey> keys = ChainNamed(absl::StrCat("soon ", i), 2);
    EXPECT_EQ(*StoreChain(**link, spec, keys), 2u);
    EXPECT_EQ(*FetchChain(**link, spec, keys), 2u);
  }
}

TEST_P(TcpLinkTest, EveryVerbTakesThePortAndComesToWhatGrpcSays) {
  const auto port = *Connect({LaneKind::kTcp, LaneKind::kStream});
  const auto grpc = *Connect({LaneKind::kStream});
  const CacheSpec spec = SpecOf(65'536);
  const std::vector<BlockKey> keys = ChainNamed("both ways", 5);
  const SpecHandle of_port = port->OpenSpec(spec, Soon())->handle;
  const SpecHandle of_grpc = grpc->OpenSpec(spec, Soon())->handle;
  AwaitPort(*port);
  const auto lookups = [&] {
    EXPECT_EQ(*OnPort(1, [&] { return port->Lookup(of_port, keys, Soon()); }),
              *OnPort(0, [&] { return grpc->Lookup(of_grpc, keys, Soon()); }));
    return *grpc->Lookup(of_grpc, keys, Soon());
  };
  EXPECT_EQ(lookups(), 0u);

  const auto reserve = [&](cluster::ShardLink& link, SpecHandle handle) {
    return link.Reserve({.spec = handle, .keys = keys, .session_id = "user"}, Soon());
  };
  const auto reserved = OnPort(1, [&] { return reserve(*port, of_port); });
  ASSERT_TRUE(reserved.ok()) << reserved.status();
  EXPECT_EQ(reserved->outcomes, std::vector<ReserveOutcome>(5, ReserveOutcome::kGranted));
  EXPECT_EQ(reserve(*grpc, of_grpc)->outcomes,
            std::vector<ReserveOutcome>(5, ReserveOutcome::kPending));
  ContentSource source(keys, LayoutOf(spec).block_bytes);
  const std::vector<uint32_t> blocks = {0, 1, 2, 3, 4};
  ASSERT_TRUE(
      port->lane()
          .Write({reserved->reservation, blocks, LayoutOf(spec).block_bytes}, source, Soon())
          .ok());
  const auto commit = [&](cluster::ShardLink& link) {
    return link.Commit(reserved->reservation, blocks, ChecksumsOf(keys, spec), Soon());
  };
  EXPECT_EQ(OnPort(1, [&] { return commit(*port); })->committed, 5u);
  const absl::Status over = OnPort(1, [&] { return commit(*port); }).status();
  EXPECT_EQ(RefusalReason(over), "RESERVATION_UNKNOWN");
  EXPECT_EQ(OnPort(0, [&] { return commit(*grpc); }).status(), over);
  EXPECT_EQ(lookups(), 5u);
  EXPECT_EQ(OnPort(1, [&] { return reserve(*port, of_port); })->outcomes,
            reserve(*grpc, of_grpc)->outcomes);

  for (const uint32_t first : {0u, 3u, 5u}) {
    const auto run = OnPort(1, [&] { return port->Acquire(of_port, keys, first, Soon()); });
    const auto same = OnPort(0, [&] { return grpc->Acquire(of_grpc, keys, first, Soon()); });
    ASSERT_TRUE(run.ok() && same.ok()) << run.status() << same.status();
    EXPECT_EQ(run->run_blocks, 5u);
    EXPECT_EQ(run->run_blocks, same->run_blocks);
    EXPECT_EQ(run->checksums, same->checksums);
    ASSERT_EQ(run->tiers.size(), same->tiers.size());
    EXPECT_EQ(run->lease ? 1 : 0, same->lease ? 1 : 0);
    if (!run->lease) continue;
    EXPECT_EQ(run->tiers.front().tier, same->tiers.front().tier);
    EXPECT_EQ(shard_->engine().Describe(Tenant{tenant_ ? kAcme : "default"}).leases, 2u);
    EXPECT_TRUE(OnPort(1, [&] { return port->Release(run->lease, Soon()); }).ok());
    EXPECT_TRUE(grpc->Release(same->lease, Soon()).ok());
  }
  const absl::Status no_spec =
      OnPort(1, [&] { return port->Lookup(SpecHandle(77), keys, Soon()); }).status();
  EXPECT_TRUE(absl::IsNotFound(no_spec)) << no_spec;
  EXPECT_EQ(grpc->Lookup(SpecHandle(77), keys, Soon()).status(), no_spec);
}

TEST_P(TcpLinkTest, AVerbOnThePortIsTimedAsItsRpc) {
  const auto link = *Connect({LaneKind::kTcp, LaneKind::kStream});
  AwaitPort(*link);
  const telemetry::Labels release = {{"method", "reprise.v1.ShardService/Release"}, {"code", "OK"}};
  const auto released = [&] {
    uint64_t calls = 0;
    for (const telemetry::Family& family : shard_->server().status().metrics()) {
      for (const telemetry::HistogramSample& sample : family.histograms) {
        if (sample.labels != release) continue;
        calls += std::accumulate(sample.counts.begin(), sample.counts.end(), uint64_t{0});
      }
    }
    return calls;
  };
  const uint64_t before = released();
  EXPECT_TRUE(OnPort(1, [&] { return link->Release(LeaseId(666), Soon()); }).ok());
  EXPECT_EQ(released(), before + 1);
}

TEST_P(TcpLinkTest, ALargeRequestGoesOverGrpc) {
  const auto link = *Connect({LaneKind::kTcp, LaneKind::kStream});
  AwaitPort(*link);
  const SpecHandle spec = link->OpenSpec(SpecOf(65'536), Soon())->handle;
  const std::vector<BlockKey> keys = ChainNamed("long", limits::kTcpVerbBytesMax / kDigestBytes);
  EXPECT_EQ(*OnPort(0, [&] { return link->Lookup(spec, keys, Soon()); }), 0u);
  const std::span<const BlockKey> shorter(keys.data(), keys.size() - 8);
  EXPECT_EQ(*OnPort(1, [&] { return link->Lookup(spec, shorter, Soon()); }), 0u);
}

TEST_P(TcpLinkTest, ALinkThatIsClosedAsksNothingMore) {
  const auto link = *Connect({LaneKind::kTcp, LaneKind::kStream});
  AwaitPort(*link);
  link->Close();
  const absl::Status status =
      OnPort(0, [&] { return link->Lookup(SpecHandle(1), {}, Soon()); }).status();
  EXPECT_EQ(RefusalReason(status), "LINK_DOWN") << status;
  const absl::Time end = Soon();
  while (lanes_->use().tcp_connections > 0 && absl::Now() < end) std::this_thread::yield();
  EXPECT_EQ(lanes_->use().tcp_connections, 0u);
}

TEST_P(TcpLinkTest, AShardThatDrainsAnswersOnItsPortAndRefusesWritesThere) {
  const auto link = *Connect({LaneKind::kTcp, LaneKind::kStream});
  const CacheSpec spec = SpecOf(65'536);
  const std::vector<BlockKey> keys = ChainNamed("kept", 2), late = ChainNamed("late", 1);
  ASSERT_EQ(*StoreChain(*link, spec, keys), 2u);
  AwaitPort(*link);
  const SpecHandle handle = link->OpenSpec(spec, Soon())->handle;
  shard_->server().StartDraining();
  EXPECT_EQ(
      RefusalReason(OnPort(1, [&] { return link->Reserve({.spec = handle, .keys = late}, Soon()); })
                        .status()),
      "DRAINING");
  EXPECT_EQ(OnPort(1, [&] { return link->Acquire(handle, keys, 0, Soon()); })->run_blocks, 2u);
}

TEST_P(TcpLinkTest, APortThatOutlivesItsServerAnswersNobody) {
  const auto link = *Connect({LaneKind::kTcp, LaneKind::kStream});
  AwaitPort(*link);
  shard_->server().Stop(absl::ZeroDuration());
  EXPECT_TRUE(absl::IsUnavailable(link->Lookup(SpecHandle(1), {}, Soon()).status()));
}

INSTANTIATE_TEST_SUITE_P(Ports, TcpLinkTest, ::testing::Bool(), [](const auto& encrypted) {
  return encrypted.param ? "encrypted" : "plaintext";
});

// One attachment of a caller that speaks for itself on the port.
class PortCaller {
 public:
  PortCaller(const std::string& address,
             const std::shared_ptr<const wire::Credentials>& credentials)
      : stub_(v1::ShardService::NewStub(wire::MakeChannel(address, credentials))),
        stream_(stub_->Attach(&context_)) {
    v1::AttachRequest hello;
    hello.mutable_hello()->add_lanes(v1::LANE_KIND_TCP);
    v1::AttachResponse response;
    REPRISE_CHECK(stream_->Write(hello) && stream_->Read(&response));
    welcome_ = response.welcome();
    REPRISE_CHECK(welcome_.tcp_verbs());
  }
  ~PortCaller() {
    context_.TryCancel();
    stream_->Finish();
  }
  AttachmentId id() const { return AttachmentId(welcome_.attachment_id()); }
  uint32_t Open(const CacheSpec& spec) {
    v1::OpenSpecRequest request;
    request.set_attachment_id(id().value);
    *request.mutable_spec() = wire::ToMessage(spec);
    v1::OpenSpecResponse response;
    grpc::ClientContext context;
    REPRISE_CHECK(stub_->OpenSpec(&context, request, &response).ok());
    return response.spec_handle();
  }
  // A lane that says it is `attachment`, with this one's key.
  std::unique_ptr<lanes::TcpLane> LaneAs(AttachmentId attachment) const {
    std::optional<lanes::TcpKey> key;
    if (!welcome_.tcp_key().empty()) {
      std::copy(welcome_.tcp_key().begin(), welcome_.tcp_key().end(), key.emplace().begin());
    }
    return *lanes::TcpLane::Create({.host = "127.0.0.1",
                                    .port = static_cast<uint16_t>(welcome_.tcp_port()),
                                    .attachment = attachment,
                                    .key = key});
  }
  template <typename Response, typename Request>
  static Response Ask(lanes::TcpLane& lane, lanes::tcp::Verb verb, const Request& request) {
    const absl::Time end = Soon();
    while (!lane.Ready() && absl::Now() < end) std::this_thread::yield();
    const auto answer = lane.Ask(verb, request.SerializeAsString(), Soon());
    Response response;
    EXPECT_TRUE(answer.has_value() && answer->ok() && response.ParseFromString(**answer));
    return response;
  }

 private:
  const std::unique_ptr<v1::ShardService::Stub> stub_;
  grpc::ClientContext context_;
  const std::unique_ptr<grpc::ClientReaderWriter<v1::AttachRequest, v1::AttachResponse>> stream_;
  v1::AttachResponse::Welcome welcome_;
};

class TcpTenantsTest : public TcpLinkTest {};
INSTANTIATE_TEST_SUITE_P(Ports, TcpTenantsTest, ::testing::Values(true));

TEST_P(TcpTenantsTest, ATenantReachesNothingOfAnothersByThePort) {
  const auto acme = *Connect({LaneKind::kTcp, LaneKind::kStream});
  const CacheSpec spec = SpecOf(65'536);
  const std::vector<BlockKey> keys = ChainNamed("secret", 3);
  ASSERT_EQ(*StoreChain(*acme, spec, keys), 3u);
  AwaitPort(*acme);
  const auto run = acme->Acquire(acme->OpenSpec(spec, Soon())->handle, keys, 0, Soon());
  ASSERT_TRUE(run.ok() && run->lease) << run.status();

  PortCaller of_acme(shard_->address(), tenant_);
  PortCaller other(shard_->address(), As(authority_, kOther));
  // With its own key it is nobody else.
  const auto posing = other.LaneAs(of_acme.id());
  EXPECT_FALSE(posing->Ask(lanes::tcp::Verb::kRelease, "", Soon()).has_value());
  CheckingSink sink({.blocks = 1, .block_bytes = 512});
  const absl::Status refused = posing->Read({run->lease, 0, 1, 512}, sink, Soon());
  EXPECT_TRUE(absl::IsUnavailable(refused)) << refused;
  EXPECT_FALSE(posing->Ready());
  const auto lane = other.LaneAs(other.id());
  v1::AcquireRequest acquire;
  acquire.set_attachment_id(of_acme.id().value);
  acquire.set_spec_handle(other.Open(spec));
  acquire.set_keys(PackKeys(keys));
  EXPECT_EQ(
      PortCaller::Ask<v1::AcquireResponse>(*lane, lanes::tcp::Verb::kAcquire, acquire).run_blocks(),
      0u);
  v1::ReleaseRequest release;
  release.set_attachment_id(of_acme.id().value);
  release.add_lease_ids(run->lease.value);
  EXPECT_EQ(
      PortCaller::Ask<v1::ReleaseResponse>(*lane, lanes::tcp::Verb::kRelease, release).released(),
      0u);
  EXPECT_EQ(shard_->engine().Describe(Tenant{kAcme}).leases, 1u);
  // Whoever it is by its own key finds them.
  const auto rightly = of_acme.LaneAs(of_acme.id());
  acquire.set_attachment_id(other.id().value);
  acquire.set_spec_handle(of_acme.Open(spec));
  EXPECT_EQ(PortCaller::Ask<v1::AcquireResponse>(*rightly, lanes::tcp::Verb::kAcquire, acquire)
                .run_blocks(),
            3u);
}

// A shard behind mTLS that names a port and gives no key for it, or none that is one.
class KeylessShard final : public v1::ShardService::Service {
 public:
  KeylessShard(std::shared_ptr<const wire::Credentials> credentials, std::string key)
      : key_(std::move(key)),
        server_(*wire::Listen({.listen = "127.0.0.1:0",
                               .services = {this},
                               .name = v1::ShardService::service_full_name(),
                               .credentials = std::move(credentials),
                               .call_ended = nullptr})) {}
  ~KeylessShard() override { server_.server->Shutdown(absl::ToChronoTime(absl::Now())); }

  const std::string& address() const { return server_.address; }
  bool SomebodyCame() const {
    pollfd waiting{port_.sockets.front().get(), POLLIN, 0};
    return ::poll(&waiting, 1, 300) > 0;
  }

  grpc::Status Attach(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<v1::AttachResponse, v1::AttachRequest>* stream) override {
    v1::AttachRequest request;
    if (!stream->Read(&request)) return grpc::Status::OK;
    v1::AttachResponse response;
    v1::AttachResponse::Welcome& welcome = *response.mutable_welcome();
    welcome.set_attachment_id(7);
    welcome.set_shard_id("keyless");
    welcome.set_keep_alive_interval_ms(10'000);
    welcome.add_lanes(v1::LANE_KIND_TCP);
    welcome.add_lanes(v1::LANE_KIND_STREAM);
    welcome.set_tcp_port(port_.port);
    welcome.set_tcp_verbs(true);
    welcome.set_tcp_key(key_);
    stream->Write(response);
    while (stream->Read(&request)) {
    }
    return grpc::Status::OK;
  }

 private:
  const std::string key_;
  const lanes::tcp::Listeners port_ = *lanes::tcp::Listen("127.0.0.1", 0);
  const wire::Listening server_;
};

TEST(KeylessShardTest, WhoHasCertificatesSendsNoBlockInPlaintext) {
  TestAuthority authority;
  for (const std::string& key : {std::string(), std::string(31, 'k'), std::string(33, 'k')}) {
    KeylessShard shard(As(authority, kFleet), key);
    const auto link = cluster::ShardLink::Connect({.address = shard.address(),
                                                   .lanes = {LaneKind::kTcp, LaneKind::kStream},
                                                   .credentials = As(authority, kAcme)},
                                                  Soon());
    ASSERT_TRUE(link.ok()) << link.status();
    EXPECT_EQ((*link)->lane().kind(), LaneKind::kStream);
    EXPECT_TRUE(
        absl::IsUnimplemented((*link)->Lookup(SpecHandle(1), {}, Soon()).status()));  // over gRPC
    EXPECT_FALSE(shard.SomebodyCame()) << key.size();
  }
}

}  // namespace
}  // namespace reprise::testing
