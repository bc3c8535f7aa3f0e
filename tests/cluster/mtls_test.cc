// Who gets a connection, and whose blocks are whose, when both ends of one prove who they are.
#include "tests/cluster/mtls.h"

#include <filesystem>

#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/wire/spec.h"

namespace reprise::testing {
namespace {

const CacheSpec kSpec = SpecOf(16 << 10);
constexpr uint32_t kBlocks = 12;
// A connection that is refused is tried again until then.
constexpr absl::Duration kShort = absl::Seconds(1);

class MtlsTest : public SecureShardTest {
 protected:
  bool Reaches(const std::shared_ptr<const wire::Credentials>& credentials,
               absl::Duration patience = kShort) {
    const auto link = Attach(address(), credentials, "", patience);
    if (!link.ok()) {
      EXPECT_TRUE(absl::IsUnavailable(link.status()) || absl::IsDeadlineExceeded(link.status()))
          << link.status();
    }
    return link.ok();
  }

  TestAuthority another_;
};

TEST_F(MtlsTest, BothEndsHaveToShowWhoTheyAre) {
  EXPECT_TRUE(Reaches(As(authority_, kAcme)));
  EXPECT_FALSE(Reaches(nullptr)) << "plaintext";
  TlsOptions of_another = another_.IssueTo(kAcme);
  of_another.ca_file = authority_.ca_file();
  EXPECT_FALSE(Reaches(Load(of_another))) << "a certificate of an authority that nobody believes";
  TlsOptions believes_another = authority_.IssueTo(kAcme);
  believes_another.ca_file = another_.ca_file();
  EXPECT_FALSE(Reaches(Load(believes_another))) << "a server that the client does not believe";
  EXPECT_FALSE(Reaches(Load(authority_.Issue(
      "late", {.names = absl::StrCat("URI:", kAcme), .valid_for = -absl::Hours(1)}))))
      << "a certificate that has expired";
}

TEST_F(MtlsTest, AServerIsWhoTheClientWants) {
  EXPECT_FALSE(Reaches(Load(authority_.IssueTo(kAcme), {"spiffe://test/somebody-else"})));
  EXPECT_TRUE(Reaches(Load(authority_.IssueTo(kAcme), {"spiffe://test/somebody-else", kFleet})));
  EXPECT_FALSE(Reaches(Load(authority_.IssueTo(kAcme), {})))
      << "without an id the certificate has to name the host, and this one does not";
}

TEST_F(MtlsTest, WithoutAnIdTheHostsNameCounts) {
  PeeredShard::Options options = SecureShard(authority_, 1, "named");
  options.credentials = Load(authority_.Issue(
      "named", {.names = absl::StrCat("URI:", kFleet, ",IP:127.0.0.1,DNS:localhost")}));
  PeeredShard named(options);
  EXPECT_TRUE(Attach(named.shard().address(), Load(authority_.IssueTo(kAcme), {})).ok());
}

TEST_F(MtlsTest, FilesThatChangeAreTakenUpWithoutARestart) {
  const auto newcomer = [this] {
    TlsOptions tls = another_.IssueTo(kAcme);
    tls.ca_file = authority_.ca_file();
    return tls;
  }();
  EXPECT_FALSE(Reaches(Load(newcomer)));
  const auto before = Attach(address(), As(authority_, kAcme));
  ASSERT_TRUE(before.ok());
  // The shard believes the other authority from now on.
  std::filesystem::copy_file(another_.ca_file(), authority_.ca_file() + ".new");
  // A client that has to believe what the shard shows has its own copy of what was there.
  std::filesystem::copy_file(authority_.ca_file(), another_.folder() + "/first-ca.pem");
  std::filesystem::rename(authority_.ca_file() + ".new", authority_.ca_file());
  TlsOptions tls = newcomer;
  tls.ca_file = another_.folder() + "/first-ca.pem";
  const auto credentials = Load(tls);
  bool reached = false;
  const absl::Time deadline = absl::Now() + 4 * limits::kTlsReloadInterval;
  while (!reached && absl::Now() < deadline) reached = Reaches(credentials);
  EXPECT_TRUE(reached);
  EXPECT_TRUE((*before)->alive()) << "connections that are there go on";
}

TEST_F(MtlsTest, TwoTenantsDoNotMeet) {
  const auto acme = Attach(address(), As(authority_, kAcme));
  const auto other = Attach(address(), As(authority_, kOther));
  ASSERT_TRUE(acme.ok() && other.ok()) << acme.status() << other.status();
  const auto keys = ChainNamed("chat", kBlocks);
  ASSERT_EQ(StoreChain(**acme, kSpec, keys).value_or(0), kBlocks);
  EXPECT_EQ(FetchChain(**acme, kSpec, keys).value_or(0), kBlocks);
  EXPECT_EQ(FetchChain(**other, kSpec, keys).value_or(99), 0u);
  // The same keys are the other one's to store, with bytes of its own.
  EXPECT_EQ(StoreChain(**other, kSpec, keys).value_or(0), kBlocks);
  const auto& engine = shard_.shard().engine();
  EXPECT_EQ(engine.Describe(Tenant{kAcme}).specs.at(0).blocks, kBlocks);
  EXPECT_EQ(engine.Describe(Tenant{kOther}).specs.at(0).blocks, kBlocks);
}

TEST_F(MtlsTest, AnotherOnesAttachmentLooksLikeNone) {
  const auto channel = wire::MakeChannel(address(), As(authority_, kAcme));
  const auto stub = v1::ShardService::NewStub(channel);
  const RawAttachment acme(*stub);
  v1::OpenSpecRequest request;
  request.set_attachment_id(acme.id());
  *request.mutable_spec() = wire::ToMessage(kSpec);
  const auto asked_by = [&](v1::ShardService::Stub& who) {
    grpc::ClientContext context;
    v1::OpenSpecResponse response;
    return wire::FromGrpcStatus(who.OpenSpec(&context, request, &response));
  };
  EXPECT_TRUE(asked_by(*stub).ok());
  const auto others =
      v1::ShardService::NewStub(wire::MakeChannel(address(), As(authority_, kOther)));
  EXPECT_EQ(RefusalReason(asked_by(*others)), "ATTACHMENT_UNKNOWN");
  const auto fleet =
      v1::ShardService::NewStub(wire::MakeChannel(address(), As(authority_, kFleet)));
  EXPECT_EQ(RefusalReason(asked_by(*fleet)), "ATTACHMENT_UNKNOWN") << "not even the fleet's";
}

TEST_F(MtlsTest, OnlyTheFleetAttachesAsSomebodyElse) {
  for (const char* who : {kAcme, kOperator}) {
    const auto link = Attach(address(), As(authority_, who), kOther);
    EXPECT_EQ(RefusalReason(link.status()), "TENANT_OF_OTHERS") << who << ": " << link.status();
  }
  EXPECT_TRUE(Attach(address(), As(authority_, kAcme), kAcme).ok()) << "its own name is no lie";
  const auto link = Attach(address(), As(authority_, kFleet), kOther);
  ASSERT_TRUE(link.ok()) << link.status();
  const auto keys = ChainNamed("chat", kBlocks);
  ASSERT_EQ(StoreChain(**link, kSpec, keys).value_or(0), kBlocks);
  EXPECT_EQ(FetchChain(**Attach(address(), As(authority_, kOther)), kSpec, keys).value_or(0),
            kBlocks);
  EXPECT_EQ(FetchChain(**Attach(address(), As(authority_, kFleet)), kSpec, keys).value_or(99), 0u)
      << "what it stored for another one is not its own";
}

TEST(PlaintextTest, NobodyAttachesAsSomebodyElse) {
  PeeredShard shard({.id = "plain"});
  EXPECT_EQ(RefusalReason(Attach(shard.shard().address(), nullptr, kAcme).status()),
            "TENANT_OF_OTHERS");
}

// ---- Between shards

class MtlsPeersTest : public ::testing::Test {
 protected:
  absl::StatusOr<uint32_t> StoredAt(size_t i, const char* who, const std::vector<BlockKey>& keys) {
    REPRISE_ASSIGN_OR_RETURN(const auto link,
                             Attach(shard(i).shard().address(), As(authority_, who)));
    return FetchChain(*link, kSpec, keys);
  }
  std::vector<BlockKey> StoreAt(size_t i, const char* who, const std::string& name) {
    const auto keys = ChainNamed(name, kBlocks);
    const auto link = Attach(shard(i).shard().address(), As(authority_, who));
    EXPECT_TRUE(link.ok()) << link.status();
    EXPECT_EQ(StoreChain(**link, kSpec, keys).value_or(0), kBlocks);
    return keys;
  }

  void Start(uint32_t replication) {
    shards_ = std::make_unique<PeeredShards>(
        std::vector{SecureShard(authority_, replication), SecureShard(authority_, replication)});
  }
  PeeredShard& shard(size_t i) { return (*shards_)[i]; }

  TestAuthority authority_;
  std::unique_ptr<PeeredShards> shards_;  // "a" and "b"
};

TEST_F(MtlsPeersTest, EveryTenantsBlocksGetTheirCopiesAndStayItsOwn) {
  Start(/*replication=*/2);
  const auto acme = StoreAt(0, kAcme, "chat");
  const auto other = StoreAt(0, kOther, "another chat");
  ASSERT_TRUE(shard(0).peers().AwaitCopies(absl::Seconds(30)));
  EXPECT_EQ(StoredAt(1, kAcme, acme).value_or(0), kBlocks);
  EXPECT_EQ(StoredAt(1, kOther, other).value_or(0), kBlocks);
  EXPECT_EQ(StoredAt(1, kAcme, other).value_or(99), 0u);
  EXPECT_EQ(StoredAt(1, kFleet, acme).value_or(99), 0u) << "the copy is the tenant's";
}

TEST_F(MtlsPeersTest, AChainIsPulledForTheTenantThatAsks) {
  Start(/*replication=*/1);
  const auto keys = StoreAt(1, kAcme, "chat");
  const auto pull_as = [&](const char* who) -> absl::StatusOr<cluster::PulledRun> {
    REPRISE_ASSIGN_OR_RETURN(const auto link,
                             Attach(shard(0).shard().address(), As(authority_, who)));
    REPRISE_ASSIGN_OR_RETURN(const auto spec, link->OpenSpec(kSpec, Soon()));
    return link->Pull({.spec = spec.handle, .keys = keys, .session_id = "chat", .from = {"b"}},
                      Soon());
  };
  const auto others = pull_as(kOther);
  ASSERT_TRUE(others.ok()) << others.status();
  EXPECT_EQ(others->run_blocks, 0u) << "what another tenant has is not there";
  const auto own = pull_as(kAcme);
  ASSERT_TRUE(own.ok()) << own.status();
  EXPECT_EQ(own->pulled_blocks, kBlocks);
  EXPECT_EQ(StoredAt(0, kAcme, keys).value_or(0), kBlocks);
}

TEST_F(MtlsPeersTest, APeerThatIsNotOfTheFleetIsToldNothing) {
  Start(/*replication=*/1);
  PeeredShard::Options options = SecureShard(authority_, 1, "imposter");
  options.credentials = Load(authority_.IssueTo(kAcme), {kFleet});
  PeeredShard imposter(options);
  imposter.Meet({{.id = {"a"}, .address = shard(0).shard().address()},
                 {.id = {"imposter"}, .address = imposter.shard().address()}});
  const auto secret = StoreAt(0, kOther, "secret");
  // It serves whom it likes, and asks the others in their name.
  const auto link = Attach(imposter.shard().address(), Load(authority_.IssueTo(kOther), {kAcme}));
  ASSERT_TRUE(link.ok()) << link.status();
  const auto spec = (*link)->OpenSpec(kSpec, Soon());
  ASSERT_TRUE(spec.ok()) << spec.status();
  const auto run = (*link)->Pull(
      {.spec = spec->handle, .keys = secret, .session_id = "chat", .from = {"a"}}, Soon());
  EXPECT_EQ(RefusalReason(run.status()), "TENANT_OF_OTHERS") << run.status();
}

}  // namespace
}  // namespace reprise::testing
