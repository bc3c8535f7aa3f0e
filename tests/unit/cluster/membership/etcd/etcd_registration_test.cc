#include "cluster/membership/etcd/etcd_registration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "cluster/membership/etcd/member_record.h"
#include "proto/types/clock.h"
#include "tests/support/fake_etcd/fake_etcd.h"
#include "tests/support/soon.h"

namespace reprise::cluster {
namespace {

using reprise::testing::FakeEtcd;
using reprise::testing::Soon;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;

constexpr char kKey[] = "/m/shard-0";
const Member kSelf{.id = {"shard-0"}, .address = "10.0.0.1:7070", .weight = 2};

class EtcdRegistrationTest : public ::testing::Test {
 protected:
  std::unique_ptr<EtcdRegistration> Register(const Member& self = kSelf,
                                             absl::Duration call_timeout = absl::Seconds(1)) {
    return std::make_unique<EtcdRegistration>(
        EtcdRegistrationOptions{.self = self,
                                .prefix = "/m/",
                                .ttl = absl::Seconds(1),
                                .log =
                                    [this](absl::string_view line) {
                                      absl::MutexLock lock(&mu_);
                                      lines_.emplace_back(line);
                                    }},
        EtcdClient::Create({.endpoints = {etcd_.address()}, .call_timeout = call_timeout}).value());
  }
  bool Registered(const Member& member = kSelf) {
    return Soon([&] { return etcd_.Value(kKey) == ToRecord({.member = member}); });
  }
  std::vector<std::string> lines() {
    absl::MutexLock lock(&mu_);
    return lines_;
  }

  absl::Mutex mu_;
  std::vector<std::string> lines_ ABSL_GUARDED_BY(mu_);
  FakeEtcd etcd_;
};

TEST_F(EtcdRegistrationTest, AnEntryOutlivesItsLeasesTime) {
  const auto registration = Register();
  ASSERT_TRUE(Registered());
  // Three times what its lease has: it is looked at all the while.
  const absl::Time end = absl::Now() + absl::Seconds(3);
  EXPECT_TRUE(Soon([&] {
    EXPECT_NE(etcd_.Value(kKey), "");
    return absl::Now() > end || ::testing::Test::HasFailure();
  }));
  EXPECT_EQ(registration->state().trouble, "");
  EXPECT_THAT(lines(), Contains("members: registered as shard-0 at 10.0.0.1:7070"));
}

TEST_F(EtcdRegistrationTest, WithoutAGoodByeItEndsWithItsLease) {
  auto registration = Register();
  ASSERT_TRUE(Registered());
  registration.reset();
  EXPECT_EQ(etcd_.Value(kKey), ToRecord({.member = kSelf}));
  EXPECT_TRUE(Soon([&] { return etcd_.keys() == 0; }));
}

TEST_F(EtcdRegistrationTest, AGoodByeIsSaid) {
  auto registration = Register();
  ASSERT_TRUE(Registered());
  ASSERT_TRUE(Soon([&] { return !lines().empty(); }));
  registration->Leave();
  EXPECT_EQ(etcd_.Value(kKey), ToRecord({.member = kSelf, .leaving = true}));
  registration.reset();
  EXPECT_TRUE(Soon([&] { return etcd_.keys() == 0; }));
}

TEST_F(EtcdRegistrationTest, AGoodByeToAnEtcdThatDoesNotAnswerHoldsNothingUp) {
  auto registration = Register(kSelf, absl::Hours(1));
  ASSERT_TRUE(Registered());
  etcd_.Pause();
  const absl::Time begun = absl::Now();
  registration->Leave();
  registration.reset();
  EXPECT_LT(absl::Now() - begun, limits::kEtcdGoodByeTimeout + absl::Seconds(10));
  etcd_.Resume();
}

TEST_F(EtcdRegistrationTest, AnEntryThatIsLostIsWrittenAgain) {
  const auto registration = Register();
  ASSERT_TRUE(Registered());
  etcd_.Delete(kKey);
  EXPECT_TRUE(Registered());
  etcd_.EndLeases();
  EXPECT_EQ(etcd_.Value(kKey), "");
  EXPECT_TRUE(Registered());
  etcd_.Put(kKey, "nonsense");
  EXPECT_TRUE(Registered());
}

TEST_F(EtcdRegistrationTest, ItRegistersWhenEtcdComes) {
  etcd_.Stop();
  const auto registration = Register();
  ASSERT_TRUE(Soon([&] { return !registration->state().trouble.empty(); }));
  EXPECT_LE(registration->state().troubled_since, MonotonicClock().Now());
  etcd_.Start();
  EXPECT_TRUE(Registered());
  EXPECT_TRUE(Soon([&] { return registration->state().trouble.empty(); }));
}

TEST_F(EtcdRegistrationTest, OfTwoShardsWithOneIdTheFirstStays) {
  auto first = Register();
  ASSERT_TRUE(Registered());
  const Member other{.id = kSelf.id, .address = "10.0.0.2:7070"};
  const auto second = Register(other);
  ASSERT_TRUE(Soon([&] { return !second->state().trouble.empty(); }));
  EXPECT_THAT(second->state().trouble, AllOf(HasSubstr("registered at 10.0.0.1:7070"),
                                             HasSubstr("give each shard its own --id")));
  EXPECT_EQ(etcd_.Value(kKey), ToRecord({.member = kSelf}));
  // Nobody is there any more, and the lease ends.
  first.reset();
  EXPECT_TRUE(Registered(other));
  EXPECT_TRUE(Soon([&] { return second->state().trouble.empty(); }));
}

TEST_F(EtcdRegistrationTest, AShardThatRestartsTakesItsEntryOverAtOnce) {
  auto before = Register();
  ASSERT_TRUE(Registered());
  before.reset();  // killed: its lease lives on
  const auto after = Register();
  ASSERT_TRUE(Soon([&] { return lines().size() == 2; }));
  EXPECT_EQ(after->state().trouble, "");
  // The end of the old lease is not the end of the entry.
  const absl::Time end = absl::Now() + absl::Milliseconds(1500);
  EXPECT_TRUE(Soon([&] {
    EXPECT_NE(etcd_.Value(kKey), "");
    return absl::Now() > end || ::testing::Test::HasFailure();
  }));
}

TEST_F(EtcdRegistrationTest, WhoLeavesMakesRoomForAnotherAddressAtOnce) {
  auto first = Register();
  ASSERT_TRUE(Registered());
  ASSERT_TRUE(Soon([&] { return !lines().empty(); }));
  first->Leave();
  const Member other{.id = kSelf.id, .address = "10.0.0.2:7070"};
  const auto second = Register(other);
  EXPECT_TRUE(Registered(other));
}

}  // namespace
}  // namespace reprise::cluster
