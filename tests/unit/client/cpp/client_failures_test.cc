// The client's verbs while shards and routers die, hang, come back and hold wrong bytes.
#include <thread>

#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"
#include "proto/types/clock.h"
#include "proto/types/refusal.h"
#include "tests/unit/client/cpp/client_fixture.h"

namespace reprise::client {
namespace {

using reprise::testing::ChainNamed;
using testing::ClientTest;
using testing::FakeShard;
using testing::kSession;
using testing::kShort;

TEST_F(ClientTest, TheReplicaServesWhenHomeIsDead) {
  const auto keys = ChainNamed("chain", 8);
  Store(keys);
  Put(cluster_.Placed(kSession, 1), keys);
  cluster_.Home(kSession).trouble.down = true;
  const AcquireResult acquired = Acquire(keys);
  ASSERT_EQ(acquired.run->blocks(), 8u);
  EXPECT_EQ(Fetch(acquired.run, keys).blocks, 8u);
}

TEST_F(ClientTest, TheReplicaServesWhenTheRouterIsDeadToo) {
  const auto keys = ChainNamed("chain", 8);
  Store(keys);
  Put(cluster_.Placed(kSession, 1), keys);
  cluster_.router_down = true;
  cluster_.Home(kSession).trouble.down = true;
  EXPECT_EQ(Acquire(keys).run->blocks(), 8u);
}

TEST_F(ClientTest, AReplicaThatTheRouterDoesNotKnowYetIsFoundWhenHomeIsDead) {
  const auto keys = ChainNamed("chain", 8);
  Put(cluster_.Placed(kSession, 1), keys);
  cluster_.router_blind = true;
  Acquire(ChainNamed("warm", 1));
  cluster_.Home(kSession).trouble.down = true;
  EXPECT_EQ(Acquire(keys).run->blocks(), 8u);
}

TEST_F(ClientTest, AShardThatDiesInTheMiddleOfAReadIsReplacedByItsReplica) {
  const auto keys = ChainNamed("chain", 12);
  Store(keys);
  Put(cluster_.Placed(kSession, 1), keys);
  const AcquireResult acquired = Acquire(keys);
  cluster_.Home(kSession).trouble.die_at_block = 5;
  const FetchResult fetched = Fetch(acquired.run, keys);
  EXPECT_EQ(fetched.blocks, 12u);
  EXPECT_EQ(fetched.shards, 2u);
  EXPECT_EQ(client_->counters().blocks_rescued.load(), 7u);
}

TEST_F(ClientTest, AShardThatDiesWithoutAReplicaLeavesAShorterRun) {
  const auto keys = ChainNamed("chain", 12);
  Store(keys);
  const AcquireResult acquired = Acquire(keys);
  cluster_.Home(kSession).trouble.die_at_block = 5;
  const FetchResult fetched = Fetch(acquired.run, keys);
  EXPECT_EQ(fetched.blocks, 5u);
  EXPECT_FALSE(fetched.status.ok());
}

TEST_F(ClientTest, ACorruptBlockEndsTheRunThereAndIsCounted) {
  const auto keys = ChainNamed("chain", 12);
  Store(keys);
  Put(cluster_.Placed(kSession, 1), keys);
  const AcquireResult acquired = Acquire(keys);
  cluster_.Home(kSession).trouble.corrupt_block = 3;
  const FetchResult fetched = Fetch(acquired.run, keys);
  EXPECT_EQ(fetched.blocks, 3u);
  EXPECT_EQ(fetched.corrupt, 1u);
  EXPECT_EQ(RefusalReason(fetched.status), "BLOCK_CORRUPT");
  EXPECT_EQ(client_->counters().blocks_corrupt.load(), 1u);
}

TEST_F(ClientTest, CallsToAShardThatHangsReturnByTheirDeadlineAndTheNextOnesDoNotAskIt) {
  const auto keys = ChainNamed("chain", 6);
  Store(keys);
  FakeShard& home = cluster_.Home(kSession);
  home.trouble.hung = true;
  const AcquireResult first = Acquire(keys, 3 * kShort);
  EXPECT_EQ(first.run->blocks(), 0u);
  EXPECT_TRUE(absl::IsDeadlineExceeded(first.status)) << first.status;
  const int asked = home.trouble.acquires;
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Acquire(keys, 3 * kShort).run->blocks(), 0u);
  EXPECT_EQ(home.trouble.acquires, asked);
}

TEST_F(ClientTest, AShardThatCameBackIsUsedAgain) {
  const auto keys = ChainNamed("chain", 6);
  Store(keys);
  FakeShard& home = cluster_.Home(kSession);
  home.trouble.hung = true;
  Acquire(keys, 3 * kShort);
  home.trouble.hung = false;
  const absl::Time give_up = absl::Now() + absl::Seconds(30);
  while (Acquire(keys).run->blocks() == 0 && absl::Now() < give_up)
    absl::SleepFor(absl::Milliseconds(5));
  EXPECT_EQ(Acquire(keys).run->blocks(), 6u);
}

TEST_F(ClientTest, AShardThatIsBackIsNoticedWhileOthersAreAsked) {
  const auto keys = ChainNamed("chain", 4);
  Store(keys);
  FakeShard& home = cluster_.Home(kSession);
  home.trouble.hung = true;
  Acquire(keys, 3 * kShort);
  const auto breaker = [&] {
    for (const ShardView& shard : client_->Shards()) {
      if (shard.address == home.address()) return shard.breaker;
    }
    return Breaker::State::kClosed;
  };
  ASSERT_NE(breaker(), Breaker::State::kClosed);
  home.trouble.hung = false;
  std::string other;
  for (int i = 0; other.empty() || &cluster_.Home(other) == &home; ++i)
    other = absl::StrCat("s", i);
  const absl::Time give_up = absl::Now() + absl::Seconds(30);
  while (breaker() != Breaker::State::kClosed && absl::Now() < give_up) {
    ASSERT_TRUE(
        client_->Acquire({.spec = spec_, .keys = ChainNamed("other", 2), .session = other}).ok());
    absl::SleepFor(absl::Milliseconds(5));
  }
  EXPECT_EQ(breaker(), Breaker::State::kClosed);
}

TEST_F(ClientTest, AShardThatRestartedIsAttachedToAgainAtOnce) {
  const auto keys = ChainNamed("chain", 6);
  Store(keys);
  cluster_.Home(kSession).Restart();
  EXPECT_EQ(Acquire(keys).run->blocks(), 0u);
  EXPECT_EQ(Store(keys).stored, 6u);
  EXPECT_EQ(Acquire(keys).run->blocks(), 6u);
}

TEST_F(ClientTest, NoCallWaitsForTheEndOfALink) {
  const auto keys = ChainNamed("chain", 6);
  Store(keys);
  FakeShard& home = cluster_.Home(kSession);
  home.trouble.stuck = true;
  // Whoever waits is set free, late.
  absl::Notification done;
  std::thread patience([&] {
    done.WaitForNotificationWithTimeout(absl::Seconds(10));
    home.trouble.stuck = false;
  });
  const absl::Time started = MonotonicClock().Now();
  for (int i = 0; i < 3; ++i) {
    // Its run may be the last owner of the link.
    AcquireResult held = Acquire(keys);
    EXPECT_EQ(held.run->blocks(), 6u);
    home.Restart();
    held.run.reset();
    EXPECT_EQ(Acquire(keys).run->blocks(), 0u);
    EXPECT_EQ(Store(keys).stored, 6u);
  }
  EXPECT_LT(MonotonicClock().Now() - started, absl::Seconds(5));
  done.Notify();
  patience.join();
}

TEST_F(ClientTest, AStoreGoesToTheNextShardWhenHomeIsDeadDrainingOrHung) {
  int number = 0;
  const auto store_next = [&] {
    const auto keys = ChainNamed(absl::StrCat("chain ", ++number), 4);
    EXPECT_EQ(Store(keys).stored, 4u);
    EXPECT_EQ(cluster_.Placed(kSession, 1).Described("blocks"), 4u * number);
  };
  FakeShard& home = cluster_.Home(kSession);
  home.trouble.draining = true;
  store_next();
  home.trouble.draining = false;
  home.trouble.down = true;
  store_next();
  EXPECT_EQ(home.Described("blocks"), 0u);
}

TEST_F(ClientTest, ACancelledOperationIsDoneWhileTheShardStillHangs) {
  const auto keys = ChainNamed("chain", 4);
  Store(keys);
  cluster_.Home(kSession).trouble.hung = true;
  // As many as there are threads, and one that waits for a thread.
  std::vector<Operation<AcquireResult>> operations;
  for (size_t i = 0; i <= limits::kClientThreads; ++i) {
    operations.push_back(*client_->StartAcquire(
        {.spec = spec_, .keys = keys, .session = kSession, .timeout = 4 * kShort}));
  }
  operations.back().Cancel();
  EXPECT_TRUE(operations.back().Done());
  EXPECT_TRUE(absl::IsCancelled(operations.back().Take().status));
  for (auto& operation : operations) EXPECT_TRUE(operation.Wait(absl::Seconds(30)));
}

}  // namespace
}  // namespace reprise::client
