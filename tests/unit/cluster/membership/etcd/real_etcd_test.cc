// What the fake is trusted for, against etcd itself: $REPRISE_ETCD names its executable, which
// `./dev test` brings along. Without one every test here says so and is skipped.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cluster/membership/etcd/etcd_membership.h"
#include "cluster/membership/etcd/member_record.h"
#include "proto/types/status_macros.h"
#include "tests/support/process.h"
#include "tests/support/soon.h"
#include "tests/support/test_authority.h"
#include "tests/unit/cluster/membership/membership_conformance.h"

namespace reprise::cluster {
namespace {

using reprise::testing::Process;
using reprise::testing::Soon;
using reprise::testing::TestAuthority;
using ::testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(40);

const char* EtcdPath() {
  return std::getenv("REPRISE_ETCD");
}

int FreePort() {
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{.sin_family = AF_INET, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof(address);
  REPRISE_CHECK(::bind(socket, reinterpret_cast<sockaddr*>(&address), size) == 0);
  REPRISE_CHECK(::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  ::close(socket);
  return ntohs(address.sin_port);
}

class RealEtcd {
 public:
  // With `tls` its files, and clients have to show a certificate of their own.
  explicit RealEtcd(TlsOptions tls = {}) : tls_(std::move(tls)) {
    std::string name = ::testing::TempDir() + "/etcd.XXXXXX";
    REPRISE_CHECK(mkdtemp(name.data()) != nullptr);
    folder_ = name;
    Start();
  }
  ~RealEtcd() {
    process_.reset();
    std::filesystem::remove_all(folder_);
  }

  void Start() {
    const std::string client = absl::StrCat(tls_.none() ? "http" : "https", "://", address_);
    const std::string peer = absl::StrCat("http://127.0.0.1:", peer_port_);
    std::vector<std::string> arguments = {EtcdPath(),
                                          "--name",
                                          "one",
                                          "--data-dir",
                                          folder_ + "/data",
                                          "--logger",
                                          "zap",
                                          "--log-outputs",
                                          folder_ + "/log",
                                          "--listen-client-urls",
                                          client,
                                          "--advertise-client-urls",
                                          client,
                                          "--listen-peer-urls",
                                          peer,
                                          "--initial-advertise-peer-urls",
                                          peer,
                                          "--initial-cluster",
                                          "one=" + peer};
    if (!tls_.none()) {
      for (const std::string& argument :
           {std::string("--client-cert-auth"), "--trusted-ca-file=" + tls_.ca_file,
            "--cert-file=" + tls_.certificate_file, "--key-file=" + tls_.key_file}) {
        arguments.push_back(argument);
      }
    }
    process_ = std::make_unique<Process>(arguments);
  }
  Process& process() { return *process_; }
  EtcdOptions options() const {
    return {.endpoints = {address_}, .call_timeout = absl::Seconds(2)};
  }

 private:
  const TlsOptions tls_;
  std::string folder_;
  const std::string address_ = absl::StrCat("127.0.0.1:", FreePort());
  const int peer_port_ = FreePort();
  std::unique_ptr<Process> process_;
};

std::unique_ptr<EtcdMembership> Open(EtcdOptions etcd) {
  return EtcdMembership::Create({.etcd = std::move(etcd), .registration_ttl = absl::Seconds(3)})
      .value();
}

// As somebody who edits by hand.
void Write(EtcdClient& client, const Member& member, bool leaving) {
  const std::string key = absl::StrCat("/reprise/members/", member.id.name);
  REPRISE_CHECK(Soon([&] {
    const auto found = client.Get(key);
    if (!found.ok()) return false;
    const auto written =
        client.Put({.key = key,
                    .value = ToRecord({.member = member, .leaving = leaving}),
                    .mod_revision = found->has_value() ? (*found)->mod_revision : 0});
    return written.ok() && *written;
  }));
}

class RealEtcdRig : public MembershipRig {
 public:
  RealEtcdRig() : client_(EtcdClient::Create(etcd_.options()).value()) {
    Change(MembersNamed({"shard-9"}));
    membership_ = Open(etcd_.options());
    REPRISE_CHECK(Soon([&] { return !membership_->Members().empty(); }));
  }
  Membership& membership() override { return *membership_; }
  void Change(const std::vector<Member>& members) override {
    for (const Member& old : members_) {
      const auto stays = std::find_if(members.begin(), members.end(),
                                      [&](const Member& member) { return member.id == old.id; });
      if (stays == members.end()) Write(*client_, old, true);
    }
    for (const Member& member : members) Write(*client_, member, false);
    members_ = members;
  }

 private:
  RealEtcd etcd_;
  const std::unique_ptr<EtcdClient> client_;
  std::vector<Member> members_;
  std::unique_ptr<EtcdMembership> membership_;
};

INSTANTIATE_TYPED_TEST_SUITE_P(RealEtcd, MembershipConformance, RealEtcdRig);

const std::vector<Member> kTwo = MembersNamed({"shard-0", "shard-1"});

bool Have(const Membership& membership, const std::vector<Member>& members) {
  return Soon([&] { return membership.Members() == members; }, kPatience);
}

TEST(RealEtcdTest, ShardsJoinAndLeave) {
  RealEtcd etcd;
  const auto router = Open(etcd.options());
  auto first = Open(etcd.options());
  const auto second = Open(etcd.options());
  first->Join(kTwo[0]);
  second->Join(kTwo[1]);
  ASSERT_TRUE(Have(*router, kTwo));
  ASSERT_TRUE(Have(*first, kTwo));
  second->Leave(absl::Seconds(20));
  EXPECT_TRUE(Have(*router, {kTwo[0]}));
  EXPECT_EQ(router->State().trouble, "");
}

TEST(RealEtcdTest, AKilledShardsEntryEndsAndItStaysAMemberForAWhile) {
  RealEtcd etcd;
  const auto client = EtcdClient::Create(etcd.options()).value();
  const auto router = Open(etcd.options());
  auto shard = Open(etcd.options());
  shard->Join(kTwo[0]);
  ASSERT_TRUE(Have(*router, {kTwo[0]}));
  shard.reset();
  ASSERT_TRUE(Soon([&] {
    const auto listing = client->List("/reprise/members/");
    return listing.ok() && listing->entries.empty();
  }));
  EXPECT_TRUE(Have(*router, {kTwo[0]}));
}

TEST(RealEtcdTest, AnEtcdThatIsStoppedAndKilledAndComesBackChangesNothing) {
  RealEtcd etcd;
  const auto router = Open(etcd.options());
  const auto shard = Open(etcd.options());
  shard->Join(kTwo[0]);
  ASSERT_TRUE(Have(*router, {kTwo[0]}));
  etcd.process().Stop();
  ASSERT_TRUE(Soon([&] { return !shard->State().trouble.empty(); }));
  EXPECT_EQ(router->Members(), std::vector<Member>{kTwo[0]});
  etcd.process().Continue();
  ASSERT_TRUE(Soon([&] { return shard->State().trouble.empty(); }));
  etcd.process().Kill();
  etcd.process().Wait(absl::Seconds(10));
  ASSERT_TRUE(Soon([&] { return !router->State().trouble.empty(); }));
  EXPECT_EQ(router->Members(), std::vector<Member>{kTwo[0]});
  etcd.Start();
  ASSERT_TRUE(
      Soon([&] { return router->State().trouble.empty() && shard->State().trouble.empty(); }));
  EXPECT_EQ(router->Members(), std::vector<Member>{kTwo[0]});
  const auto late = Open(etcd.options());
  EXPECT_TRUE(Have(*late, {kTwo[0]}));
}

TEST(RealEtcdTest, OverTlsBothSidesShowWhoTheyAre) {
  TestAuthority authority;
  RealEtcd etcd(authority.Issue("etcd", {.names = "DNS:localhost,IP:127.0.0.1"}));
  const TlsOptions own = authority.Issue("shard", {.names = "DNS:shard"});
  EtcdOptions options = etcd.options();
  options.ca_file = own.ca_file;
  options.certificate_file = own.certificate_file;
  options.key_file = own.key_file;
  const auto shard = Open(options);
  shard->Join(kTwo[0]);
  EXPECT_TRUE(Have(*shard, {kTwo[0]}));

  options.certificate_file.clear();
  options.key_file.clear();
  const auto nobody = Open(options);
  const auto plaintext = Open(etcd.options());
  TestAuthority other;
  options = etcd.options();
  options.ca_file = other.ca_file();
  const auto doubter = Open(options);
  for (const Membership* membership : {nobody.get(), plaintext.get(), doubter.get()}) {
    EXPECT_TRUE(Soon([&] { return !membership->State().trouble.empty(); }));
    EXPECT_TRUE(membership->Members().empty());
  }
}

}  // namespace
}  // namespace reprise::cluster

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (reprise::cluster::EtcdPath() == nullptr) {
    std::puts("SKIPPED: $REPRISE_ETCD names no etcd; `./dev test` brings one along");
    return 77;
  }
  return RUN_ALL_TESTS();
}
