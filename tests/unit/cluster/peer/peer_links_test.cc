#include "cluster/peer/peer_links.h"

#include <gtest/gtest.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "proto/types/clock.h"
#include "proto/types/limits.h"
#include "tests/support/manual_clock.h"
#include "tests/unit/cluster/peer/fake_peers.h"

namespace reprise::cluster {
namespace {

class PeerLinksTest : public ::testing::Test {
 protected:
  PeerLinksTest() { cluster_.peer("a"); }

  absl::StatusOr<std::shared_ptr<ShardLink>> Get() {
    return links_.Get(member_, tenant_, PeerUse::kWrite, absl::InfiniteFuture());
  }
  std::string ReasonOfGet() { return std::string(RefusalReason(Get().status())); }
  int connects() {
    absl::MutexLock lock(&cluster_.peer("a").mu);
    return cluster_.peer("a").connects;
  }
  void ConnectSays(const absl::Status& status) {
    absl::MutexLock lock(&cluster_.peer("a").mu);
    cluster_.peer("a").connect = status;
  }

  Tenant tenant_ = {kDefaultTenant};
  Member member_ = {.id = {"a"}, .address = "127.0.0.1:7001"};
  FakeCluster cluster_;
  absl::Notification end_;  // links may wait for it to their own end
  testing::ManualClock clock_;
  PeerLinks links_{cluster_.Connect(), clock_};
};

TEST_F(PeerLinksTest, OneLinkServesEveryCaller) {
  const auto first = Get();
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(*Get(), *first);
  EXPECT_EQ(connects(), 1);
}

TEST_F(PeerLinksTest, APeerThatDoesNotAnswerIsAskedOncePerRest) {
  ConnectSays(absl::UnavailableError("gone"));
  EXPECT_EQ(Get().status().message(), "gone");
  for (int i = 0; i < 5; ++i) EXPECT_EQ(ReasonOfGet(), "PEER_RESTING");
  EXPECT_EQ(connects(), 1);
  clock_.Advance(limits::kBreakerOpenMin);
  EXPECT_EQ(Get().status().message(), "gone");
  EXPECT_EQ(connects(), 2);
}

TEST_F(PeerLinksTest, TheRestDoublesUpToItsLimitAndBeginsAnewAfterASuccess) {
  ConnectSays(absl::UnavailableError("gone"));
  absl::Duration rest = limits::kBreakerOpenMin;
  for (int failures = 1; failures < 20; ++failures) {
    ASSERT_EQ(Get().status().message(), "gone") << failures;
    clock_.Advance(rest - absl::Milliseconds(1));
    ASSERT_EQ(ReasonOfGet(), "PEER_RESTING") << failures;
    clock_.Advance(absl::Milliseconds(1));
    rest = std::min(2 * rest, limits::kBreakerOpenMax);
  }
  ConnectSays(absl::OkStatus());
  ASSERT_TRUE(Get().ok());
  links_.Succeeded(member_);
  links_.Failed(member_);
  EXPECT_EQ(ReasonOfGet(), "PEER_RESTING");
  clock_.Advance(limits::kBreakerOpenMin);
  EXPECT_TRUE(Get().ok());
}

TEST_F(PeerLinksTest, ALinkWhoseCallFailedIsGivenUp) {
  const auto first = Get();
  ASSERT_TRUE(first.ok());
  links_.Failed(member_);
  clock_.Advance(limits::kBreakerOpenMin);
  const auto second = Get();
  ASSERT_TRUE(second.ok());
  EXPECT_NE(*first, *second);
  EXPECT_EQ(connects(), 2);
}

TEST_F(PeerLinksTest, NobodyWaitsForTheEndOfALink) {
  {
    absl::MutexLock lock(&cluster_.peer("a").mu);
    cluster_.peer("a").end = &end_;
  }
  // Whoever waits is set free, late.
  std::thread patience([&] {
    if (!end_.WaitForNotificationWithTimeout(absl::Seconds(10))) end_.Notify();
  });
  const absl::Time started = MonotonicClock().Now();
  ASSERT_TRUE(Get().ok());
  links_.Failed(member_);
  clock_.Advance(limits::kBreakerOpenMin);
  ASSERT_TRUE(Get().ok());
  member_.address = "127.0.0.1:7002";
  ASSERT_TRUE(Get().ok());
  EXPECT_LT(MonotonicClock().Now() - started, absl::Seconds(5));
  if (!end_.HasBeenNotified()) end_.Notify();
  patience.join();
}

TEST_F(PeerLinksTest, ADrainingPeerGetsNoNewWorkAndIsNotCountedAsFailed) {
  ASSERT_TRUE(Get().ok());
  {
    absl::MutexLock lock(&cluster_.peer("a").mu);
    cluster_.peer("a").draining = true;
  }
  EXPECT_EQ(ReasonOfGet(), "PEER_RESTING");
  EXPECT_TRUE(links_.Get(member_, tenant_, PeerUse::kRead, absl::InfiniteFuture()).ok())
      << "what it has can be read";
  {
    absl::MutexLock lock(&cluster_.peer("a").mu);
    cluster_.peer("a").draining = false;
  }
  EXPECT_TRUE(Get().ok());
  EXPECT_EQ(connects(), 1);
}

TEST_F(PeerLinksTest, OnceClosedNobodyIsAsked) {
  ASSERT_TRUE(Get().ok());
  links_.Close();
  EXPECT_EQ(ReasonOfGet(), "PEER_RESTING");
  EXPECT_EQ(connects(), 1);
}

TEST_F(PeerLinksTest, AnotherAddressIsTriedAtOnce) {
  ConnectSays(absl::UnavailableError("gone"));
  EXPECT_FALSE(Get().ok());
  ConnectSays(absl::OkStatus());
  EXPECT_EQ(ReasonOfGet(), "PEER_RESTING");
  member_.address = "127.0.0.1:7002";
  EXPECT_TRUE(Get().ok());
}

TEST_F(PeerLinksTest, EveryTenantHasALinkOfItsOwnAndThoseUsedLastStay) {
  const auto of_default = Get();
  for (size_t i = 1; i < limits::kPeerTenantsMax; ++i) {
    tenant_ = {absl::StrCat("tenant ", i)};
    ASSERT_TRUE(Get().ok());
  }
  tenant_ = {kDefaultTenant};
  EXPECT_EQ(*Get(), *of_default) << "all of them fit";
  EXPECT_EQ(connects(), static_cast<int>(limits::kPeerTenantsMax));
  tenant_ = {"one more"};
  ASSERT_TRUE(Get().ok());
  tenant_ = {kDefaultTenant};
  EXPECT_EQ(*Get(), *of_default) << "it was used lately";
  tenant_ = {"tenant 1"};
  ASSERT_TRUE(Get().ok());
  EXPECT_EQ(connects(), static_cast<int>(limits::kPeerTenantsMax) + 2) << "that one was not";
}

TEST_F(PeerLinksTest, APeerThatFailsLosesItsLinksOfAllTenants) {
  const auto first = Get();
  tenant_ = {"acme"};
  ASSERT_TRUE(Get().ok());
  links_.Failed(member_);
  tenant_ = {kDefaultTenant};
  EXPECT_EQ(ReasonOfGet(), "PEER_RESTING");
}

TEST_F(PeerLinksTest, AShardThatCallsItselfOtherwiseIsNotThePeer) {
  PeerLinks links(
      [this](const Member&, const Tenant&,
             absl::Time) -> absl::StatusOr<std::unique_ptr<ShardLink>> {
        return std::make_unique<FakeLink>(cluster_.peer("a"), ShardId{"b"});
      },
      clock_);
  const auto got = links.Get(member_, tenant_, PeerUse::kWrite, absl::InfiniteFuture());
  EXPECT_EQ(RefusalReason(got.status()), "PEER_OTHER") << got.status();
}

}  // namespace
}  // namespace reprise::cluster
