#include "cluster/membership/etcd/etcd_membership.h"

#include <fstream>
#include <string>
#include <vector>

#include "cluster/membership/etcd/member_record.h"
#include "proto/types/clock.h"
#include "tests/support/fake_etcd/fake_etcd.h"
#include "tests/support/soon.h"
#include "tests/unit/cluster/membership/membership_conformance.h"

namespace reprise::cluster {
namespace {

using reprise::testing::FakeEtcd;
using reprise::testing::Soon;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kPrefix[] = "/reprise/members/";

std::string KeyOf(const std::string& id) {
  return absl::StrCat(kPrefix, id);
}

class EtcdMembershipTest : public ::testing::Test {
 protected:
  std::unique_ptr<EtcdMembership> Open(absl::Duration vanished_kept = absl::Minutes(10)) {
    return EtcdMembership::Create(
               {.etcd = {.endpoints = {etcd_.address()}, .call_timeout = absl::Seconds(1)},
                .prefix = kPrefix,
                .registration_ttl = absl::Seconds(1),
                .vanished_kept = vanished_kept,
                .watch_age = absl::Milliseconds(100)})
        .value();
  }
  void Register(const Member& member) {
    etcd_.Put(KeyOf(member.id.name), ToRecord({.member = member}));
  }
  static bool Have(const Membership& membership, const std::vector<Member>& members) {
    return Soon([&] { return membership.Members() == members; });
  }
  static bool Troubled(const Membership& membership) {
    return Soon([&] { return !membership.State().trouble.empty(); });
  }
  static bool Untroubled(const Membership& membership) {
    return Soon([&] { return membership.State().trouble.empty(); });
  }

  FakeEtcd etcd_;
  const std::vector<Member> three_ = MembersNamed({"shard-0", "shard-1", "shard-2"});
};

class FakeEtcdRig : public MembershipRig {
 public:
  FakeEtcdRig() {
    Change(MembersNamed({"shard-9"}));
    membership_ = EtcdMembership::Create({.etcd = {.endpoints = {etcd_.address()}},
                                          .prefix = kPrefix,
                                          .watch_age = absl::Milliseconds(50)})
                      .value();
    Soon([&] { return !membership_->Members().empty(); });
  }
  Membership& membership() override { return *membership_; }
  void Change(const std::vector<Member>& members) override {
    for (const Member& old : members_) {
      const auto stays = std::find_if(members.begin(), members.end(),
                                      [&](const Member& member) { return member.id == old.id; });
      if (stays != members.end()) continue;
      etcd_.Put(KeyOf(old.id.name), ToRecord({.member = old, .leaving = true}));
      etcd_.Delete(KeyOf(old.id.name));
    }
    for (const Member& member : members) {
      etcd_.Put(KeyOf(member.id.name), ToRecord({.member = member}));
    }
    members_ = members;
  }

 private:
  FakeEtcd etcd_;
  std::vector<Member> members_;
  std::unique_ptr<EtcdMembership> membership_;
};

INSTANTIATE_TYPED_TEST_SUITE_P(FakeEtcd, MembershipConformance, FakeEtcdRig);

TEST_F(EtcdMembershipTest, EtcdMayComeLater) {
  etcd_.Stop();
  const auto membership = Open();
  EXPECT_THAT(membership->Members(), IsEmpty());
  ASSERT_TRUE(Troubled(*membership));
  EXPECT_THAT(membership->State().trouble, HasSubstr(etcd_.address()));
  for (const Member& member : three_) Register(member);
  etcd_.Start();
  EXPECT_TRUE(Have(*membership, three_));
  EXPECT_TRUE(Untroubled(*membership));
}

TEST_F(EtcdMembershipTest, TheLastGoodMembersStayWhileEtcdIsAway) {
  for (const Member& member : three_) Register(member);
  const auto membership = Open(absl::ZeroDuration());
  ASSERT_TRUE(Have(*membership, three_));
  etcd_.Stop();
  ASSERT_TRUE(Troubled(*membership));
  EXPECT_EQ(membership->Members(), three_);
  EXPECT_LE(membership->State().troubled_since, MonotonicClock().Now());
  EXPECT_GE(membership->State().TroubledFor(MonotonicClock().Now()), absl::ZeroDuration());
  etcd_.Start();
  EXPECT_TRUE(Untroubled(*membership));
  EXPECT_EQ(membership->Members(), three_);
}

TEST_F(EtcdMembershipTest, AnEtcdThatDoesNotAnswerIsTrouble) {
  for (const Member& member : three_) Register(member);
  const auto membership = Open();
  ASSERT_TRUE(Have(*membership, three_));
  etcd_.Pause();
  ASSERT_TRUE(Troubled(*membership));
  EXPECT_THAT(membership->State().trouble, HasSubstr("does not answer"));
  EXPECT_EQ(membership->Members(), three_);
  etcd_.Resume();
  EXPECT_TRUE(Untroubled(*membership));
}

TEST_F(EtcdMembershipTest, AMemberThatLostItsLeaderIsNotBelieved) {
  for (const Member& member : three_) Register(member);
  const auto membership = Open();
  ASSERT_TRUE(Have(*membership, three_));
  etcd_.SetLeader(false);
  ASSERT_TRUE(Troubled(*membership));
  EXPECT_THAT(membership->State().trouble, HasSubstr("no leader"));
  EXPECT_EQ(membership->Members(), three_);
  etcd_.SetLeader(true);
  EXPECT_TRUE(Untroubled(*membership));
}

TEST_F(EtcdMembershipTest, AnotherEndpointTakesOver) {
  FakeEtcd silent;
  silent.Pause();
  for (const Member& member : three_) Register(member);
  const auto membership =
      EtcdMembership::Create(
          {.etcd = {.endpoints = {"127.0.0.1:1", silent.address(), etcd_.address()},
                    .call_timeout = absl::Milliseconds(200)}})
          .value();
  EXPECT_TRUE(Have(*membership, three_));
  EXPECT_TRUE(Untroubled(*membership));
}

TEST_F(EtcdMembershipTest, WhatHappenedBetweenTwoWatchesIsSeen) {
  const auto membership = Open();
  for (int i = 0; i < 40; ++i) {
    const std::vector<Member> one = MembersNamed({absl::StrCat("shard-", i)});
    Register(one[0]);
    ASSERT_TRUE(Soon([&] {
      const std::vector<Member> now = membership->Members();
      return std::find(now.begin(), now.end(), one[0]) != now.end();
    })) << i;
  }
}

TEST_F(EtcdMembershipTest, WhatAWatchWasNotToldBeforeItEndedTheNextOneIs) {
  Register(three_[0]);
  const auto membership = Open();
  ASSERT_TRUE(Have(*membership, {three_[0]}));
  etcd_.HoldChanges(true);
  Register(three_[1]);
  // Begun, each with a revision that is ahead of what it tells.
  const int begun = etcd_.watches_begun();
  ASSERT_TRUE(Soon([&] { return etcd_.watches_begun() >= begun + 2; }));
  etcd_.HoldChanges(false);
  EXPECT_TRUE(Have(*membership, {three_[0], three_[1]}));
}

TEST_F(EtcdMembershipTest, HistoryThatIsForgottenIsReadAnew) {
  Register(three_[0]);
  const auto membership = Open();
  ASSERT_TRUE(Have(*membership, {three_[0]}));
  etcd_.Stop();
  Register(three_[1]);
  Register(three_[2]);
  etcd_.Compact();
  etcd_.Start();
  EXPECT_TRUE(Have(*membership, three_));
  EXPECT_TRUE(Untroubled(*membership));
}

TEST_F(EtcdMembershipTest, WhoVanishesStaysAMemberForAWhile) {
  for (const Member& member : three_) Register(member);
  const auto membership = Open(absl::Milliseconds(300));
  ASSERT_TRUE(Have(*membership, three_));
  const absl::Time vanished = absl::Now();
  etcd_.Delete(KeyOf("shard-1"));
  ASSERT_TRUE(Have(*membership, {three_[0], three_[2]}));
  EXPECT_GE(absl::Now() - vanished, absl::Milliseconds(300));
}

TEST_F(EtcdMembershipTest, ARecordThatNobodyCanReadIsNamed) {
  Register(three_[0]);
  etcd_.Put(KeyOf("shard-x"), "nonsense");
  const auto membership = Open();
  ASSERT_TRUE(Have(*membership, {three_[0]}));
  ASSERT_TRUE(Troubled(*membership));
  EXPECT_THAT(membership->State().trouble, HasSubstr("/reprise/members/shard-x: it is no JSON"));
  etcd_.Delete(KeyOf("shard-x"));
  EXPECT_TRUE(Untroubled(*membership));
}

TEST_F(EtcdMembershipTest, AShardThatJoinsIsSeenByOthersAndLeavesAtOnce) {
  const auto other = Open();
  const auto own = Open();
  own->Join(three_[0]);
  EXPECT_TRUE(Have(*other, {three_[0]}));
  EXPECT_TRUE(Have(*own, {three_[0]}));
  own->Leave(absl::Seconds(20));
  // Not by its lease, which it would outlive by ten minutes.
  EXPECT_TRUE(Have(*other, {}));
}

TEST_F(EtcdMembershipTest, WhatIsWrongWithARegistrationIsSaid) {
  Register({.id = {"shard-0"}, .address = "10.1.1.1:1"});
  const auto membership = Open();
  membership->Join(three_[0]);
  ASSERT_TRUE(Troubled(*membership));
  EXPECT_THAT(membership->State().trouble, HasSubstr("registered at 10.1.1.1:1 and not here"));
}

TEST_F(EtcdMembershipTest, AUserShowsItsTokenAndGetsANewOneWhenItEnds) {
  const std::string path = ::testing::TempDir() + "/etcd-password";
  std::ofstream(path) << "secret\n";
  etcd_.RequireUser("reprise", "secret");
  Register(three_[0]);
  const auto membership =
      EtcdMembership::Create(
          {.etcd = {.endpoints = {etcd_.address()}, .user = "reprise", .password_file = path},
           .watch_age = absl::Milliseconds(50)})
          .value();
  ASSERT_TRUE(Have(*membership, {three_[0]}));
  // Once as a signed token ends, and once as others do.
  etcd_.VoidTokens();
  Register(three_[1]);
  EXPECT_TRUE(Have(*membership, {three_[0], three_[1]}));
  etcd_.VoidTokens();
  Register(three_[2]);
  EXPECT_TRUE(Have(*membership, three_));
  EXPECT_TRUE(Untroubled(*membership));
  std::ofstream(path) << "wrong\n";
  etcd_.VoidTokens();
  ASSERT_TRUE(Troubled(*membership));
  EXPECT_THAT(membership->State().trouble, HasSubstr("invalid user ID or password"));
}

TEST_F(EtcdMembershipTest, ItEndsPromptlyWhateverEtcdDoes) {
  for (const bool paused : {false, true}) {
    if (paused) etcd_.Pause();
    auto membership = EtcdMembership::Create(
                          {.etcd = {.endpoints = {etcd_.address()}, .call_timeout = absl::Hours(1)},
                           .watch_age = absl::Hours(1)})
                          .value();
    EXPECT_TRUE(paused || Soon([&] { return etcd_.watches() > 0; }));
    const absl::Time begun = absl::Now();
    membership.reset();
    EXPECT_LT(absl::Now() - begun, absl::Seconds(20)) << paused;
  }
  etcd_.Resume();
}

TEST_F(EtcdMembershipTest, FlagsThatCannotWorkAreRefused) {
  const auto why = [](EtcdMembershipOptions options) {
    return std::string(EtcdMembership::Create(std::move(options)).status().message());
  };
  EXPECT_THAT(why({.etcd = {.endpoints = {}}}), HasSubstr("no HOST:PORT"));
  EXPECT_THAT(why({.etcd = {.endpoints = {"https://e:2379"}}}), HasSubstr("--etcd-ca"));
  EXPECT_THAT(why({.etcd = {.endpoints = {"e"}}}), HasSubstr("\"e\" is no HOST:PORT"));
  EXPECT_THAT(why({.etcd = {.endpoints = {"e:1"}, .certificate_file = "/x"}}), HasSubstr("a pair"));
  EXPECT_THAT(why({.etcd = {.endpoints = {"e:1"}, .ca_file = "/none"}}),
              HasSubstr("/none cannot be read"));
  EXPECT_THAT(why({.etcd = {.endpoints = {"e:1"}, .user = "u"}}), HasSubstr("a pair"));
  EXPECT_THAT(why({.etcd = {.endpoints = {"e:1"}, .user = "u", .password_file = "/dev/null"}}),
              HasSubstr("without --etcd-ca"));
  EXPECT_THAT(why({.etcd = {.endpoints = {"e:1"}}, .prefix = "/members"}), HasSubstr("end in '/'"));
  EXPECT_THAT(why({.etcd = {.endpoints = {"e:1"}}, .prefix = ""}), HasSubstr("end in '/'"));
}

}  // namespace
}  // namespace reprise::cluster
