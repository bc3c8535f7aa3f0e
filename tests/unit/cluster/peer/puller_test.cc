#include "cluster/peer/puller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/cluster/peer/peered_test.h"

namespace reprise::cluster {
namespace {

class PullerTest : public PeeredTest {
 protected:
  PullerTest() : PeeredTest(/*shards=*/6) {}

  void Give(const std::string& peer, size_t blocks) {
    absl::MutexLock lock(&cluster_.peer(peer).mu);
    cluster_.peer(peer).stored.insert(job_.keys.begin(),
                                      job_.keys.begin() + static_cast<ptrdiff_t>(blocks));
  }
  template <typename Change>
  void At(const std::string& peer, Change change) {
    absl::MutexLock lock(&cluster_.peer(peer).mu);
    change(cluster_.peer(peer));
  }
  absl::StatusOr<PulledRun> Pull(const std::string& from = "") {
    return puller_.Pull(job_, {from}, absl::InfiniteFuture());
  }
  int LeasesHeld() {
    int held = 0;
    for (const std::string& id : order_) {
      absl::MutexLock lock(&cluster_.peer(id).mu);
      held += cluster_.peer(id).leases;
    }
    return held;
  }

  const ReplicationJob job_ = Job("chat", 8);
  FakeTarget target_;
  Puller puller_{peers_, target_};
  const std::vector<std::string> order_ = PeersOf("chat");
};

TEST_F(PullerTest, WhatIsMissingComesFromTheNamedShardWithTheClientsChecksums) {
  Give("shard-3", 8);
  target_.stored = {job_.keys.begin(), job_.keys.begin() + 3};
  const auto run = Pull("shard-3");
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->run_blocks, 8u);
  EXPECT_EQ(run->pulled_blocks, 5u);
  EXPECT_EQ(run->from.name, "shard-3");
  EXPECT_EQ(target_.stored.size(), 8u);
  EXPECT_EQ(LeasesHeld(), 0);
  EXPECT_EQ(puller_.counters().blocks, 5u);
}

TEST_F(PullerTest, WithoutANameTheOneOfTheNextWithTheLongestRunIsRead) {
  Give(order_[0], 2);
  Give(order_[1], 6);
  Give(order_[2], 4);
  const auto run = Pull();
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->run_blocks, 6u);
  EXPECT_EQ(run->from.name, order_[1]);
}

TEST_F(PullerTest, OnlyTheNextFewAreAsked) {
  Give(order_[3], 8);
  const auto run = Pull();
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->run_blocks, 0u);
  EXPECT_EQ(run->from.name, "");
  for (size_t i = 0; i < order_.size(); ++i) {
    absl::MutexLock lock(&cluster_.peer(order_[i]).mu);
    EXPECT_EQ(cluster_.peer(order_[i]).lookups, i < limits::kPullPeersMax ? 1 : 0) << i;
  }
}

TEST_F(PullerTest, NothingIsReservedForWhatAPeerDoesNotHave) {
  Give(order_[0], 5);
  ASSERT_TRUE(Pull().ok());
  EXPECT_EQ(target_.reserved_blocks, 5u);
  ASSERT_TRUE(Pull().ok());
  EXPECT_EQ(target_.reserved_blocks, 5u) << "and for nothing at all when it has no more";
}

TEST_F(PullerTest, AShardThatHasAllAsksNobody) {
  target_.stored = {job_.keys.begin(), job_.keys.end()};
  Give(order_[0], 8);
  const auto run = Pull();
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->run_blocks, 8u);
  EXPECT_EQ(run->pulled_blocks, 0u);
  absl::MutexLock lock(&cluster_.peer(order_[0]).mu);
  EXPECT_EQ(cluster_.peer(order_[0]).connects, 0);
}

TEST_F(PullerTest, BlocksComeFromMembersAlone) {
  for (const char* name : {"shard-0", "shard-17", "127.0.0.1:7001"}) {
    const auto run = Pull(name);
    EXPECT_EQ(run.status().code(), absl::StatusCode::kNotFound) << name;
    EXPECT_EQ(RefusalReason(run.status()), "PEER_UNKNOWN") << name;
  }
  EXPECT_EQ(puller_.counters().pulls_failed, 3u);
}

TEST_F(PullerTest, APeerThatDiesInTheMiddleIsFollowedByTheNext) {
  Give(order_[0], 8);
  Give(order_[1], 7);
  At(order_[0], [](FakePeer& peer) ABSL_NO_THREAD_SAFETY_ANALYSIS { peer.die_at_block = 3; });
  const auto run = Pull();
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->run_blocks, 7u) << "three of the first, four of the second";
  EXPECT_EQ(run->pulled_blocks, 7u);
  EXPECT_EQ(run->from.name, order_[1]);
}

TEST_F(PullerTest, WhatCameBeforeAPeerDiedIsKept) {
  Give(order_[0], 8);
  At(order_[0], [](FakePeer& peer) ABSL_NO_THREAD_SAFETY_ANALYSIS { peer.die_at_block = 3; });
  const auto run = Pull();
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->run_blocks, 3u);
}

TEST_F(PullerTest, AFlippedByteIsNotStoredAndTheNextPeerHasIt) {
  Give(order_[0], 8);
  Give(order_[1], 8);
  At(order_[0], [](FakePeer& peer) ABSL_NO_THREAD_SAFETY_ANALYSIS { peer.corrupt_block = 2; });
  const auto run = Pull();
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->run_blocks, 8u);
  EXPECT_EQ(run->from.name, order_[1]);
  EXPECT_EQ(peers_.failures(), 1u);
  EXPECT_EQ(LeasesHeld(), 0);
}

TEST_F(PullerTest, AFlippedByteWithoutAnotherCopyIsDataLoss) {
  Give(order_[0], 8);
  At(order_[0], [](FakePeer& peer) ABSL_NO_THREAD_SAFETY_ANALYSIS { peer.corrupt_block = 2; });
  EXPECT_EQ(Pull(order_[0]).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(target_.stored.empty());
}

TEST_F(PullerTest, WithoutRoomHereNoOtherPeerIsTriedAndNoneIsBlamed) {
  Give(order_[0], 8);
  Give(order_[1], 8);
  target_.room_blocks = 0;
  const auto run = Pull();
  EXPECT_EQ(run.status().code(), absl::StatusCode::kResourceExhausted) << run.status();
  EXPECT_EQ(target_.reserved_blocks, 8u);
  EXPECT_EQ(peers_.failures(), 0u);
  EXPECT_EQ(LeasesHeld(), 0);
}

TEST_F(PullerTest, WithLessRoomThePrefixComes) {
  Give(order_[0], 8);
  target_.room_blocks = 5;
  const auto run = Pull();
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->run_blocks, 5u);
}

TEST_F(PullerTest, AShardThatIsAboutToStopIsReadFrom) {
  Give(order_[0], 8);
  At(order_[0], [](FakePeer& peer) ABSL_NO_THREAD_SAFETY_ANALYSIS { peer.draining = true; });
  ASSERT_TRUE(
      peers_
          .Link(*peers_.Find({order_[0]}), job_.tenant, PeerUse::kRead, "", absl::InfiniteFuture())
          .ok());
  const auto run = Pull();
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->run_blocks, 8u);
}

TEST_F(PullerTest, PeersAreAskedAsTheTenantWhoseChainItIs) {
  ReplicationJob job = job_;
  job.tenant = {"acme"};
  const auto run = puller_.Pull(job, {}, absl::InfiniteFuture());
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_THAT(cluster_.peer(order_[0]).Tenants(), ::testing::Each("acme"));
  EXPECT_THAT(cluster_.peer(order_[0]).Tenants(), ::testing::SizeIs(1));
}

}  // namespace
}  // namespace reprise::cluster
