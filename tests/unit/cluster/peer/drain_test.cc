#include "cluster/peer/drain.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "proto/types/limits.h"
#include "tests/unit/cluster/peer/peered_test.h"

namespace reprise::cluster {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(30);

class DrainTest : public PeeredTest {
 protected:
  DrainTest() : PeeredTest(/*shards=*/4) {}

  void Make(uint32_t replication, uint64_t capacity_bytes = 1 << 20) {
    drain_ = Drain::Create({.peers = &peers_,
                            .source = &source_,
                            .replication = replication,
                            .capacity_bytes = capacity_bytes});
  }
  DrainProgress Run(absl::Time deadline = absl::InfiniteFuture()) {
    drain_->Start(deadline);
    EXPECT_TRUE(drain_->Await(absl::Now() + kPatience));
    return drain_->progress();
  }
  // Conversations that begin alike, so that they are handed over one after the other.
  std::vector<ReplicationJob> Branches(int count, size_t blocks = 4) {
    std::vector<ReplicationJob> jobs;
    for (int i = 0; i < count; ++i) {
      jobs.push_back(Job(absl::StrCat("chat-", i), blocks));
      jobs.back().keys.front() = testing::KeyNamed("the beginning of all");
    }
    return jobs;
  }
  bool Has(const std::string& peer, const ReplicationJob& job) {
    const std::set<BlockKey> stored = cluster_.peer(peer).Stored();
    return std::all_of(job.keys.begin(), job.keys.end(),
                       [&](const BlockKey& key) { return stored.contains(key); });
  }
  template <typename Change>
  void OfEachPeer(Change change) {
    for (const ShardId& id : ids_) {
      if (id.name == "shard-0") continue;
      absl::MutexLock lock(&cluster_.peer(id.name).mu);
      change(cluster_.peer(id.name));
    }
  }
  // All Reserves of all peers, in the order in which they came.
  std::vector<FakeReserve> Reserves() {
    std::vector<FakeReserve> all;
    OfEachPeer([&](FakePeer& peer) ABSL_NO_THREAD_SAFETY_ANALYSIS {
      all.insert(all.end(), peer.reserves.begin(), peer.reserves.end());
    });
    std::sort(all.begin(), all.end(),
              [](const FakeReserve& a, const FakeReserve& b) { return a.number < b.number; });
    return all;
  }

  std::vector<std::string> TenantsSpokenFor() {
    std::vector<std::string> all;
    OfEachPeer([&](FakePeer& peer) ABSL_NO_THREAD_SAFETY_ANALYSIS {
      all.insert(all.end(), peer.tenants.begin(), peer.tenants.end());
    });
    return all;
  }

  FakeSource source_;
  std::unique_ptr<Drain> drain_;
};

TEST_F(DrainTest, EveryChainGoesToAsManyOthersAsItShouldHaveCopies) {
  Make(/*replication=*/2);
  std::vector<ReplicationJob> jobs;
  for (int i = 0; i < 12; ++i) jobs.push_back(Job(absl::StrCat("s", i), 5));
  source_.Lists(jobs);
  const DrainProgress progress = Run();
  EXPECT_EQ(progress.chains, 12u);
  EXPECT_EQ(progress.chains_safe, 12u);
  EXPECT_EQ(progress.blocks_copied, 2u * 12 * 5);
  EXPECT_EQ(progress.bytes_copied, 2 * 12 * 5 * kFakeBlockBytes);
  for (const ReplicationJob& job : jobs) {
    const auto order = PeersOf(job.session_id);
    EXPECT_TRUE(Has(order[0], job)) << job.session_id;
    EXPECT_TRUE(Has(order[1], job)) << job.session_id;
    EXPECT_FALSE(Has(order[2], job)) << job.session_id;
  }
}

TEST_F(DrainTest, TheOneUsedLastGoesFirstAndAllHaveOneCopyBeforeAnyHasTwo) {
  Make(2);
  const auto jobs = Branches(5);
  source_.Lists(jobs);
  EXPECT_EQ(Run().chains_safe, 5u);
  const auto reserves = Reserves();
  ASSERT_GE(reserves.size(), 10u);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(reserves[i].session, absl::StrCat("chat-", i));
}

TEST_F(DrainTest, WhatAReplicaHasAlreadyIsSafeAndIsNotSentAgain) {
  Make(1);
  const ReplicationJob job = Job("chat", 6);
  FakePeer& next = cluster_.peer(PeersOf("chat")[0]);
  {
    absl::MutexLock lock(&next.mu);
    next.stored.insert(job.keys.begin(), job.keys.end());
  }
  source_.Lists({job});
  const DrainProgress progress = Run();
  EXPECT_EQ(progress.chains_safe, 1u);
  EXPECT_EQ(progress.blocks_copied, 0u);
}

TEST_F(DrainTest, BeyondItsShareOfAPeerOnlySpareRoomIsTaken) {
  // Four shards: this one's memory divided by four is two chains.
  Make(1, 4 * 2 * 4 * kFakeBlockBytes);
  std::vector<ReplicationJob> jobs = Branches(5);
  for (ReplicationJob& job : jobs) job.session_id = "one";  // all to the same peer
  source_.Lists(jobs);
  const std::string next = PeersOf("one")[0];
  {
    absl::MutexLock lock(&cluster_.peer(next).mu);
    cluster_.peer(next).spare_blocks = 0;
  }
  const DrainProgress progress = Run();
  EXPECT_EQ(progress.chains_safe, 5u) << "the next peers of the order take the others";
  absl::MutexLock lock(&cluster_.peer(next).mu);
  int spare = 0;
  for (const FakeReserve& reserve : cluster_.peer(next).reserves) spare += reserve.spare_room;
  EXPECT_GE(spare, 2);
  EXPECT_FALSE(cluster_.peer(next).reserves[0].spare_room);
  EXPECT_FALSE(cluster_.peer(next).reserves[1].spare_room);
  EXPECT_LT(cluster_.peer(next).stored.size(), 5u * 4);
}

TEST_F(DrainTest, AFullPeerIsPassedOver) {
  Make(1);
  const ReplicationJob job = Job("chat", 4);
  const auto order = PeersOf("chat");
  {
    absl::MutexLock lock(&cluster_.peer(order[0]).mu);
    cluster_.peer(order[0]).room_blocks = 0;
  }
  source_.Lists({job});
  EXPECT_EQ(Run().chains_safe, 1u);
  EXPECT_TRUE(Has(order[1], job));
}

TEST_F(DrainTest, WithoutRoomAnywhereItEndsAndSaysWhatIsLeft) {
  Make(2);
  OfEachPeer([](FakePeer& peer) ABSL_NO_THREAD_SAFETY_ANALYSIS { peer.room_blocks = 0; });
  source_.Lists({Job("a", 3), Job("b", 3)});
  const DrainProgress progress = Run();
  EXPECT_EQ(progress.chains, 2u);
  EXPECT_EQ(progress.chains_safe, 0u);
}

TEST_F(DrainTest, WhatAnotherIsWritingThereIsLookedAtAgain) {
  Make(1);
  const ReplicationJob job = Job("chat", 4);
  FakePeer& next = cluster_.peer(PeersOf("chat")[0]);
  {
    absl::MutexLock lock(&next.mu);
    next.pending_reserves = 1;
  }
  source_.Lists({job});
  EXPECT_EQ(Run().chains_safe, 1u);
  EXPECT_TRUE(Has(PeersOf("chat")[0], job)) << "the other writer never came back";
}

TEST_F(DrainTest, PeersThatAllStopOrAreGoneEndItAtOnce) {
  Make(2);
  std::vector<ReplicationJob> jobs;
  for (int i = 0; i < 100; ++i) jobs.push_back(Job(absl::StrCat("s", i), 2));
  source_.Lists(jobs);
  OfEachPeer([](FakePeer& peer) ABSL_NO_THREAD_SAFETY_ANALYSIS { peer.draining = true; });
  DrainProgress progress = Run();
  EXPECT_EQ(progress.chains, 100u);
  EXPECT_EQ(progress.chains_safe, 0u);
  EXPECT_TRUE(Reserves().empty());

  peers_.Close();
  progress = Run();
  EXPECT_EQ(progress.chains_safe, 0u);
}

TEST_F(DrainTest, PeersThatDoNotAnswerForAWhileAreWaitedFor) {
  Make(1);
  source_.Lists(Branches(5));
  OfEachPeer([](FakePeer& peer)
                 ABSL_NO_THREAD_SAFETY_ANALYSIS { peer.writes_until_it_breaks = 0; });
  drain_->Start(absl::InfiniteFuture());
  // The clock by which peers are left alone is the test's.
  while (!drain_->Await(absl::Now() + absl::Milliseconds(5)))
    clock_.Advance(limits::kBreakerOpenMin);
  const DrainProgress progress = drain_->progress();
  EXPECT_EQ(progress.chains_safe, 5u);
}

TEST_F(DrainTest, AShardWithoutPeersIsDoneAtOnce) {
  membership_.Set({{.id = {"shard-0"}, .address = "127.0.0.1:7000"}});
  Make(2);
  source_.Lists({Job("chat", 3)});
  const DrainProgress progress = Run();
  EXPECT_EQ(progress.chains, 1u);
  EXPECT_EQ(progress.chains_safe, 0u);
}

TEST_F(DrainTest, AtItsDeadlineItIsOver) {
  Make(1);
  source_.Lists(Branches(3));
  const DrainProgress progress = Run(absl::Now());
  EXPECT_TRUE(progress.done);
  EXPECT_EQ(progress.blocks_copied, 0u);
  EXPECT_EQ(Run().chains_safe, 3u) << "and goes on when there is time again";
}

TEST_F(DrainTest, ADeadlineThatComesEarlierHolds) {
  Make(1);
  source_.Lists(Branches(3));
  absl::Notification hold;
  OfEachPeer([&](FakePeer& peer) ABSL_NO_THREAD_SAFETY_ANALYSIS { peer.hold = &hold; });
  drain_->Start(absl::InfiniteFuture());
  drain_->Start(absl::Now());
  hold.Notify();
  ASSERT_TRUE(drain_->Await(absl::Now() + kPatience));
  EXPECT_LE(Reserves().size(), 1u);
}

// A batch is kDeviceStoreBatchBytes, so that the blocks are one each.
TEST_F(DrainTest, ALongChainIsLeftInTheMiddleWhenTheTimeIsOver) {
  Make(1);
  source_.Lists({Job("chat", 50)});
  FakePeer& next = cluster_.peer(PeersOf("chat")[0]);
  absl::Notification reached, go_on;
  {
    absl::MutexLock lock(&next.mu);
    next.block_bytes = limits::kDeviceStoreBatchBytes;
    next.before_commit = [&, commits = 0]() mutable {
      if (++commits != 3) return;
      reached.Notify();
      go_on.WaitForNotification();
    };
  }
  drain_->Start(absl::InfiniteFuture());
  reached.WaitForNotification();
  drain_->Start(absl::Now());
  go_on.Notify();
  ASSERT_TRUE(drain_->Await(absl::Now() + kPatience));
  EXPECT_EQ(next.Stored().size(), 3u);
  EXPECT_EQ(drain_->progress().chains_safe, 0u);
  EXPECT_EQ(peers_.failures(), 0u) << "the peer is not at fault";
}

TEST_F(DrainTest, StartedAgainItAsksOnlyForWhatIsNotSafeYet) {
  Make(1);
  std::vector<ReplicationJob> jobs = Branches(3);
  source_.Lists(jobs);
  Run();
  const size_t before = Reserves().size();
  jobs.push_back(Job("late", 4));
  source_.Lists(jobs);
  const DrainProgress progress = Run();
  EXPECT_EQ(progress.chains, 4u);
  EXPECT_EQ(progress.chains_safe, 4u);
  EXPECT_EQ(Reserves().size(), before + 1);
}

TEST_F(DrainTest, OneKeyUnderTwoSpecsIsTwoChains) {
  Make(1);
  ReplicationJob one = Job("chat", 3), other = Job("chat", 3);
  other.spec.model = "another";
  source_.Lists({one});
  Run();
  const size_t before = Reserves().size();
  source_.Lists({one, other});
  Run();
  EXPECT_EQ(Reserves().size(), before + 1);
}

TEST_F(DrainTest, TheSameChainOfTwoTenantsIsTwoChains) {
  Make(1);
  ReplicationJob acme = Job("chat", 3);
  ReplicationJob other = acme;
  acme.tenant = {"acme"};
  other.tenant = {"other"};
  source_.Lists({acme});
  Run();
  const size_t before = Reserves().size();
  source_.Lists({acme, other});
  const DrainProgress progress = Run();
  EXPECT_EQ(progress.chains_safe, 2u);
  EXPECT_EQ(Reserves().size(), before + 1) << "what is safe for one is not safe for the other";
  EXPECT_THAT(TenantsSpokenFor(), ::testing::ElementsAre("acme", "other"));
}

}  // namespace
}  // namespace reprise::cluster
