// Links to shards whose blocks take the tcp lane: over a real server, in plaintext and encrypted,
// and what is not believed of a shard that says less than it should.

#include <gtest/gtest.h>
#include <poll.h>

#include <memory>
#include <string>
#include <utility>

#include "cluster/lanes/tcp/tcp_sockets.h"
#include "proto/wire/serving.h"
#include "service/shard/shard_lanes.h"
#include "tests/cluster/mtls.h"
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

INSTANTIATE_TEST_SUITE_P(Ports, TcpLinkTest, ::testing::Bool(), [](const auto& encrypted) {
  return encrypted.param ? "encrypted" : "plaintext";
});

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
    EXPECT_FALSE(shard.SomebodyCame()) << key.size();
  }
}

}  // namespace
}  // namespace reprise::testing
