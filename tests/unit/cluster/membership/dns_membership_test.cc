#include "cluster/membership/dns_membership.h"

#include <cstdlib>
#include <random>

#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "proto/types/clock.h"
#include "tests/support/dns/dns_server.h"
#include "tests/unit/cluster/membership/membership_conformance.h"
#include "tests/unit/cluster/membership/membership_log.h"

namespace reprise::cluster {
namespace {

using testing::DnsServer;
using testing::SrvRecord;
using Manner = testing::DnsServer::Manner;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr absl::Duration kInterval = absl::Milliseconds(5);
constexpr absl::Duration kPatience = absl::Milliseconds(60);  // where no answer comes
constexpr absl::Duration kOnlyAHangReachesIt = absl::Minutes(1);
constexpr char kName[] = "shards.test.";
constexpr char kQuestion[] = "_grpc._tcp.shards.test";

std::vector<SrvRecord> RecordsOf(const std::vector<Member>& members) {
  std::vector<SrvRecord> records;
  for (const Member& member : members) {
    const size_t colon = member.address.rfind(':');
    uint32_t port = 0;
    EXPECT_TRUE(absl::SimpleAtoi(member.address.substr(colon + 1), &port));
    records.push_back(
        {.target = member.address.substr(0, colon), .port = static_cast<uint16_t>(port)});
  }
  return records;
}

// A name of `shards` shards as Kubernetes has it.
std::vector<Member> ShardsOfKubernetes(size_t shards) {
  std::vector<Member> members;
  for (size_t i = 0; i < shards; ++i) {
    const std::string id = absl::StrCat("reprise-shard-", i);
    members.push_back(
        {.id = {id},
         .address = absl::StrCat(id, ".reprise-shard.default.svc.cluster.local:", 7000 + i)});
  }
  std::sort(members.begin(), members.end(),
            [](const Member& a, const Member& b) { return a.id < b.id; });
  return members;
}

// A membership of kQuestion's members, which are those of `members` at first.
class Asking {
 public:
  explicit Asking(const std::vector<Member>& members = {}, uint32_t seed = 0,
                  absl::Duration timeout = kOnlyAHangReachesIt)
      : server_(seed) {
    if (!members.empty()) server_.Set(kQuestion, RecordsOf(members));
    membership_ = DnsMembership::Create({.name = kName,
                                         .interval = kInterval,
                                         .timeout = timeout,
                                         .servers = server_.address(),
                                         .log = log_.Sink()})
                      .value();
    watch_ = membership_->Watch(recorder_.Call());
    EXPECT_TRUE(recorder_.WaitFor(members));
  }

  DnsServer& server() { return server_; }
  MembershipLog& log() { return log_; }
  Recorder& recorder() { return recorder_; }
  DnsMembership& membership() { return *membership_; }
  std::string trouble() { return membership_->State().trouble; }
  void End() {
    watch_.reset();
    membership_.reset();
  }

 private:
  DnsServer server_;
  MembershipLog log_;
  Recorder recorder_;
  std::unique_ptr<DnsMembership> membership_;
  std::unique_ptr<MembershipWatch> watch_;
};

class DnsRig : public MembershipRig {
 public:
  Membership& membership() override { return asking_.membership(); }
  void Change(const std::vector<Member>& members) override {
    asking_.server().Set(kQuestion, RecordsOf(members));
  }

 private:
  Asking asking_{MembersNamed({"shard-9"})};
};

INSTANTIATE_TYPED_TEST_SUITE_P(Dns, MembershipConformance, DnsRig);

TEST(DnsMembershipTest, AMemberIsATargetsFirstLabelWithItsAddressAndWeightOne) {
  Asking asking;
  asking.server().Set(kQuestion, {{.target = "b-0.b.default.svc", .port = 7071, .weight = 50},
                                  {.target = "a-0.b.default.svc", .port = 7070, .weight = 0}});
  EXPECT_TRUE(asking.recorder().WaitFor({{.id = {"a-0"}, .address = "a-0.b.default.svc:7070"},
                                         {.id = {"b-0"}, .address = "b-0.b.default.svc:7071"}}));
  EXPECT_EQ(asking.membership().State().source, "DNS name _grpc._tcp.shards.test.");
}

TEST(DnsMembershipTest, AServicesNameAloneIsSearchedInTheResolversDomains) {
  ASSERT_EQ(setenv("LOCALDOMAIN", "elsewhere.test default.svc.test", 1), 0);
  const auto members = MembersNamed({"shard-0"});
  DnsServer server;
  server.Set("_grpc._tcp.shards.default.svc.test", RecordsOf(members));
  {
    auto membership = DnsMembership::Create({.name = "shards",
                                             .interval = kInterval,
                                             .timeout = kOnlyAHangReachesIt,
                                             .servers = server.address()})
                          .value();
    Recorder recorder;
    auto watch = membership->Watch(recorder.Call());
    EXPECT_TRUE(recorder.WaitFor(members));
  }
  unsetenv("LOCALDOMAIN");
}

TEST(DnsMembershipTest, TheLastGoodMembersStayWhenTheNameIsGone) {
  const auto members = MembersNamed({"shard-0", "shard-1"});
  Asking asking(members);
  const absl::Time before = MonotonicClock().Now();
  asking.server().Remove(kQuestion);
  EXPECT_TRUE(asking.log().WaitForLineWith("does not exist"));
  EXPECT_THAT(asking.trouble(), AllOf(HasSubstr(kQuestion), HasSubstr("headless Service")));
  EXPECT_GE(asking.membership().State().troubled_since, before);
  EXPECT_EQ(asking.membership().Members(), members);
  asking.server().Set(kQuestion, {});
  EXPECT_TRUE(asking.log().WaitForLineWith("no SRV records"));
  EXPECT_THAT(asking.trouble(), AllOf(HasSubstr(kQuestion), HasSubstr("clusterIP: None")));
  EXPECT_EQ(asking.membership().Members(), members);
  const auto fewer = MembersNamed({"shard-1"});
  asking.server().Set(kQuestion, RecordsOf(fewer));
  EXPECT_TRUE(asking.log().WaitForLineWith("good again"));
  EXPECT_EQ(asking.membership().Members(), fewer);
  EXPECT_EQ(asking.trouble(), "");
  const auto calls = asking.recorder().calls();
  ASSERT_GE(calls.size(), 2u);
  EXPECT_EQ(calls[calls.size() - 2], members) << "there was something between two and one";
}

TEST(DnsMembershipTest, ALateFirstAnswerIsNoTrouble) {
  Asking asking;
  ASSERT_TRUE(asking.server().WaitForQuestions(asking.server().asked().udp + 3));
  asking.server().Set(kQuestion, {});
  ASSERT_TRUE(asking.server().WaitForQuestions(asking.server().asked().udp + 3));
  EXPECT_EQ(asking.trouble(), "");
  EXPECT_THAT(asking.membership().Members(), IsEmpty());
  const auto members = MembersNamed({"shard-0"});
  asking.server().Set(kQuestion, RecordsOf(members));
  EXPECT_TRUE(asking.recorder().WaitFor(members));
  asking.End();
  EXPECT_THAT(asking.log().lines(),
              ElementsAre(AllOf(HasSubstr("none yet"), HasSubstr(kQuestion))));
}

TEST(DnsMembershipTest, ASilentServerIsTroubleFromTheStartUntilItSpeaks) {
  DnsServer server;
  server.Behave(Manner::kSilent);
  MembershipLog log;
  auto membership = DnsMembership::Create({.name = kName,
                                           .interval = kInterval,
                                           .timeout = kPatience,
                                           .servers = server.address(),
                                           .log = log.Sink()})
                        .value();
  EXPECT_TRUE(log.WaitForLineWith("within 60ms"));
  EXPECT_THAT(membership->State().trouble, AllOf(HasSubstr(kQuestion), HasSubstr("resolv.conf")));
  server.Set(kQuestion, RecordsOf(MembersNamed({"shard-0"})));
  server.Behave(Manner::kAnswers);
  EXPECT_TRUE(log.WaitForLineWith("good again"));
  EXPECT_EQ(membership->Members(), MembersNamed({"shard-0"}));
}

TEST(DnsMembershipTest, AServerThatFailsIsTrouble) {
  const auto members = MembersNamed({"shard-0"});
  Asking asking(members);
  asking.server().Behave(Manner::kFails);
  EXPECT_TRUE(asking.log().WaitForLineWith("SERVFAIL"));
  EXPECT_THAT(asking.trouble(), HasSubstr(kQuestion));
  EXPECT_EQ(asking.membership().Members(), members);
}

TEST(DnsMembershipTest, TwoTargetsWithOneNameAreRefused) {
  const auto members = MembersNamed({"shard-0"});
  Asking asking(members);
  asking.server().Set(kQuestion, {{.target = "shard-1.test", .port = 7000},
                                  {.target = "shard-0.other.test", .port = 7000},
                                  {.target = "shard-0.test", .port = 7000}});
  EXPECT_TRUE(asking.log().WaitForLineWith("two targets are named \"shard-0\""));
  EXPECT_THAT(asking.trouble(), AllOf(HasSubstr(kQuestion),
                                      HasSubstr("shard-0.other.test:7000 and shard-0.test:7000")));
  EXPECT_EQ(asking.membership().Members(), members);
}

TEST(DnsMembershipTest, TheSameTroubleInAnotherOrderIsToldOnce) {
  Asking asking(MembersNamed({"shard-0"}));
  const SrvRecord a{.target = "a.one.test", .port = 1};
  const SrvRecord other_a{.target = "a.two.test", .port = 1};
  const SrvRecord nobody{.target = "b.test", .port = 0};
  asking.server().Set(kQuestion, {a, other_a, nobody});
  EXPECT_TRUE(asking.log().WaitForLineWith("is refused"));
  asking.server().Set(kQuestion, {nobody, other_a, a});
  ASSERT_TRUE(asking.server().WaitForQuestions(asking.server().asked().udp + 3));
  asking.End();
  EXPECT_EQ(asking.log().lines().size(), 1u);
}

TEST(DnsMembershipTest, ARecordGivenTwiceIsOneMember) {
  Asking asking;
  asking.server().Set(kQuestion, {{.target = "shard-0.test", .port = 7000, .weight = 1},
                                  {.target = "shard-0.test", .port = 7000, .weight = 2}});
  EXPECT_TRUE(asking.recorder().WaitFor({{.id = {"shard-0"}, .address = "shard-0.test:7000"}}));
}

TEST(DnsMembershipTest, ATargetThatIsNoMemberRefusesTheWholeAnswer) {
  const auto members = MembersNamed({"shard-0"});
  for (const auto& [bad, words] : std::vector<std::pair<SrvRecord, std::string>>{
           {{.target = "", .port = 7000}, "id \"\""},
           {{.target = "shard 1.test", .port = 7000}, "id \"shard"},
           {{.target = "shard-1.test", .port = 0}, "address \"shard-1.test:0\""}}) {
    Asking asking(members);
    asking.server().Set(kQuestion, {{.target = "shard-2.test", .port = 7000}, bad});
    EXPECT_TRUE(asking.log().WaitForLineWith(words));
    EXPECT_THAT(asking.trouble(), AllOf(HasSubstr(kQuestion), HasSubstr("is refused")));
    EXPECT_EQ(asking.membership().Members(), members);
  }
}

TEST(DnsMembershipTest, ManyShardsComeOverTcp) {
  const auto members = ShardsOfKubernetes(200);
  Asking asking(members);
  EXPECT_EQ(asking.membership().Members().size(), 200u);
  EXPECT_GE(asking.server().asked().tcp, 1u);
}

TEST(DnsMembershipTest, FewShardsComeOverUdp) {
  Asking asking(ShardsOfKubernetes(3));
  EXPECT_EQ(asking.server().asked().tcp, 0u);
}

TEST(DnsMembershipTest, MoreShardsThanTheLimitAreRefused) {
  const auto members = MembersNamed({"shard-0"});
  Asking asking(members);
  std::vector<SrvRecord> records;
  for (size_t i = 0; i <= limits::kShardsMax; ++i) {
    records.push_back({.target = absl::StrCat("s", i, ".test"), .port = 7000});
  }
  asking.server().Set(kQuestion, records);
  EXPECT_TRUE(asking.log().WaitForLineWith("kShardsMax = 1024"));
  EXPECT_EQ(asking.membership().Members(), members);
  records.pop_back();
  asking.server().Set(kQuestion, records);
  EXPECT_TRUE(asking.log().WaitForLineWith("good again"));
  EXPECT_EQ(asking.membership().Members().size(), limits::kShardsMax);
}

TEST(DnsMembershipTest, AnAnswerCutOffOverTcpIsNoAnswer) {
  const auto members = MembersNamed({"shard-0", "shard-1", "shard-2", "shard-3"});
  Asking asking(members);
  asking.server().Behave(Manner::kCutsOff);
  EXPECT_TRUE(asking.log().WaitForLineWith("cut off even over TCP"));
  EXPECT_EQ(asking.membership().Members(), members);
}

TEST(DnsMembershipTest, GarbageIsNoAnswer) {
  const uint32_t seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  const auto members = MembersNamed({"shard-0"});
  Asking asking(members, seed, kPatience);
  asking.server().Behave(Manner::kNoise);
  EXPECT_TRUE(asking.log().WaitForLineWith("within 60ms"));
  EXPECT_EQ(asking.membership().Members(), members);
  asking.server().Behave(Manner::kRandomRecords);
  EXPECT_TRUE(asking.log().WaitForLineWith("is of no use"));
  ASSERT_TRUE(asking.server().WaitForQuestions(asking.server().asked().udp + 100));
  EXPECT_EQ(asking.membership().Members(), members);
  EXPECT_NE(asking.trouble(), "");
  asking.server().Behave(Manner::kAnswers);
  EXPECT_TRUE(asking.log().WaitForLineWith("good again"));
  EXPECT_EQ(asking.recorder().calls().back(), members);
  EXPECT_LE(asking.recorder().calls().size(), 2u) << "garbage became members";
}

TEST(DnsMembershipTest, ASilentServerDoesNotHoldUpTheEnd) {
  for (const Manner manner : {Manner::kSilent, Manner::kSilentOverTcp}) {
    Asking asking(MembersNamed({"shard-0"}));
    const DnsServer::Asked before = asking.server().Behave(manner);
    ASSERT_TRUE(manner == Manner::kSilent ? asking.server().WaitForQuestions(before.udp + 1)
                                          : asking.server().WaitForTcpQuestions(before.tcp + 1));
    const absl::Time begin = MonotonicClock().Now();
    asking.End();
    EXPECT_LT(MonotonicClock().Now() - begin, kOnlyAHangReachesIt / 4);
  }
}

TEST(DnsMembershipTest, AQuestionThatIsLostIsRepeated) {
  DnsServer server;
  server.Set(kQuestion, RecordsOf(MembersNamed({"shard-0"})));
  server.Behave(Manner::kLosesOne);
  MembershipLog log;
  auto membership = DnsMembership::Create({.name = kName,
                                           .interval = kOnlyAHangReachesIt,
                                           .timeout = absl::Seconds(3),
                                           .servers = server.address(),
                                           .log = log.Sink()})
                        .value();
  Recorder recorder;
  auto watch = membership->Watch(recorder.Call());
  EXPECT_TRUE(recorder.WaitFor(MembersNamed({"shard-0"})));
  EXPECT_THAT(log.lines(), IsEmpty());
}

TEST(DnsMembershipTest, SilentServersShareTheTime) {
  DnsServer server;
  server.Behave(Manner::kSilent);
  MembershipLog log;
  auto membership =
      DnsMembership::Create({.name = kName,
                             .interval = kOnlyAHangReachesIt,
                             .timeout = absl::Milliseconds(300),
                             .servers = absl::StrJoin(std::vector(3, server.address()), ","),
                             .log = log.Sink()})
          .value();
  EXPECT_TRUE(log.WaitForLineWith("within 300ms"));
  // A third of the time for each of three: there is none to ask them all a second time.
  EXPECT_LE(server.asked().udp, 4u);
}

TEST(DnsMembershipTest, AQuestionThatIsGivenUpAtTheEndIsNoAnswer) {
  Asking asking(MembersNamed({"shard-0"}));
  asking.server().Behave(Manner::kFails);
  EXPECT_TRUE(asking.log().WaitForLineWith("SERVFAIL"));
  const DnsServer::Asked before = asking.server().Behave(Manner::kSilent);
  ASSERT_TRUE(asking.server().WaitForQuestions(before.udp + 1));
  asking.End();
  EXPECT_THAT(asking.log().lines(), ElementsAre(HasSubstr("SERVFAIL")));
}

TEST(DnsMembershipTest, QuestionsAreAnIntervalApart) {
  constexpr absl::Duration kLonger = absl::Milliseconds(40);
  DnsServer server;
  const absl::Time begin = MonotonicClock().Now();
  auto membership =
      DnsMembership::Create({.name = kName, .interval = kLonger, .servers = server.address()})
          .value();
  ASSERT_TRUE(server.WaitForQuestions(3));
  EXPECT_GE(MonotonicClock().Now() - begin, 2 * kLonger);
}

TEST(DnsMembershipTest, TheEndComesBetweenTwoQuestions) {
  DnsServer server;
  server.Set(kQuestion, RecordsOf(MembersNamed({"shard-0"})));
  auto membership =
      DnsMembership::Create(
          {.name = kName, .interval = kOnlyAHangReachesIt, .servers = server.address()})
          .value();
  {
    Recorder recorder;
    auto watch = membership->Watch(recorder.Call());
    EXPECT_TRUE(recorder.WaitFor(MembersNamed({"shard-0"})));
  }
  const absl::Time begin = MonotonicClock().Now();
  membership.reset();
  EXPECT_LT(MonotonicClock().Now() - begin, kOnlyAHangReachesIt / 4);
}

TEST(DnsMembershipTest, WhatIsNoNameIsRefused) {
  const std::string label(63, 'a');
  for (const std::string& name :
       {std::string(), std::string("."), std::string("a..b"), std::string(".a"), std::string("a b"),
        std::string("reprise-shard:7070"), std::string("_grpc._tcp.a"), std::string("a/b"),
        std::string("-a"), std::string("a-"), std::string("a\0b", 3), label + "a",
        absl::StrCat(label, ".", label, ".", label, ".", label)}) {
    const auto membership = DnsMembership::Create({.name = name});
    EXPECT_EQ(membership.status().code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(membership.status().message()),
                AllOf(HasSubstr("no DNS name"), HasSubstr("e.g. reprise-shard")));
  }
}

TEST(DnsMembershipTest, WhatAreNoServersIsRefused) {
  const auto membership = DnsMembership::Create({.name = kName, .servers = "dns.test:53"});
  EXPECT_EQ(membership.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(membership.status().message()), HasSubstr("\"dns.test:53\""));
}

TEST(DnsMembershipTest, NamesOfServicesAreTaken) {
  DnsServer server;
  for (const char* name : {"reprise-shard", "reprise-shard.default.svc.cluster.local.", "a_b.7"}) {
    const auto membership = DnsMembership::Create({.name = name, .servers = server.address()});
    EXPECT_TRUE(membership.ok()) << membership.status();
  }
}

}  // namespace
}  // namespace reprise::cluster
