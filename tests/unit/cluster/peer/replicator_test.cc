#include "cluster/peer/replicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/synchronization/notification.h"
#include "tests/unit/cluster/peer/peered_test.h"

namespace reprise::cluster {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(30);

class ReplicatorTest : public PeeredTest {
 protected:
  ReplicatorTest() : PeeredTest(/*shards=*/4) {}

  void Start(uint32_t replication = 2) {
    replicator_ =
        Replicator::Create({.replication = replication, .peers = &peers_, .source = &source_});
  }
  std::set<BlockKey> KeysOf(const ReplicationJob& job) {
    return {job.keys.begin(), job.keys.end()};
  }
  void Replicate(const ReplicationJob& job) {
    replicator_->Submit(job);
    ASSERT_TRUE(replicator_->WaitIdle(kPatience));
  }

  FakeSource source_;
  std::unique_ptr<Replicator> replicator_;
};

TEST_F(ReplicatorTest, AChainIsCopiedWholeToTheNextPeerAndToNoOther) {
  Start();
  const ReplicationJob job = Job("chat", 9);
  Replicate(job);
  const auto peers = PeersOf("chat");
  EXPECT_EQ(cluster_.peer(peers[0]).Stored(), KeysOf(job));
  EXPECT_TRUE(cluster_.peer(peers[1]).Stored().empty());
  const ReplicatorCounters counters = replicator_->counters();
  EXPECT_EQ(counters.chains_done, 1u);
  EXPECT_EQ(counters.blocks_copied, 9u);
  EXPECT_EQ(counters.bytes_copied, 9 * kFakeBlockBytes);
}

TEST_F(ReplicatorTest, OnlyWhatThePeerLacksIsCopied) {
  Start();
  Replicate(Job("chat", 4));
  Replicate(Job("chat", 10));
  EXPECT_EQ(replicator_->counters().blocks_copied, 10u);
  EXPECT_EQ(cluster_.peer(PeersOf("chat")[0]).Stored().size(), 10u);
  Replicate(Job("chat", 10));
  EXPECT_EQ(replicator_->counters().blocks_copied, 10u);
  EXPECT_EQ(replicator_->counters().chains_done, 3u);
}

TEST_F(ReplicatorTest, AsManyPeersAsTheFactorAsks) {
  Start(3);
  const ReplicationJob job = Job("chat", 5);
  Replicate(job);
  const auto peers = PeersOf("chat");
  EXPECT_EQ(cluster_.peer(peers[0]).Stored(), KeysOf(job));
  EXPECT_EQ(cluster_.peer(peers[1]).Stored(), KeysOf(job));
  EXPECT_TRUE(cluster_.peer(peers[2]).Stored().empty());
  ReplicationJob one = Job("alone", 5);
  one.replication = 1;
  Replicate(one);
  for (const std::string& peer : peers)
    EXPECT_EQ(cluster_.peer(peer).Stored().count(one.keys[0]), 0u);
}

TEST_F(ReplicatorTest, APeerThatDoesNotAnswerIsSkippedAndLeftAloneForAWhile) {
  Start();
  const auto peers = PeersOf("chat");
  {
    absl::MutexLock lock(&cluster_.peer(peers[0]).mu);
    cluster_.peer(peers[0]).connect = absl::UnavailableError("gone");
  }
  const ReplicationJob job = Job("chat", 3);
  Replicate(job);
  EXPECT_EQ(cluster_.peer(peers[1]).Stored(), KeysOf(job));
  EXPECT_EQ(peers_.failures(), 1u);
  Replicate(Job("chat", 4));
  {
    absl::MutexLock lock(&cluster_.peer(peers[0]).mu);
    EXPECT_EQ(cluster_.peer(peers[0]).connects, 1) << "asked again at once";
    cluster_.peer(peers[0]).connect = absl::OkStatus();
  }
  clock_.Advance(limits::kBreakerOpenMin);
  Replicate(Job("chat", 5));
  EXPECT_EQ(cluster_.peer(peers[0]).Stored().size(), 5u) << "the whole chain, not its end alone";
}

TEST_F(ReplicatorTest, AChainIsCopiedWhenThePeerThatDidNotAnswerMayBeAskedAgain) {
  Start(/*replication=*/4);
  const auto peers = PeersOf("chat");
  FakePeer& gone = cluster_.peer(peers[1]);
  {
    absl::MutexLock lock(&gone.mu);
    gone.connect = absl::UnavailableError("gone");
  }
  const ReplicationJob job = Job("chat", 3);
  Replicate(job);
  EXPECT_EQ(replicator_->counters().chains_short, 1u);
  {
    absl::MutexLock lock(&gone.mu);
    gone.connect = absl::OkStatus();
  }
  clock_.Advance(limits::kBreakerOpenMin);
  absl::MutexLock lock(&gone.mu);
  const auto copied = [&gone]()
                          ABSL_SHARED_LOCKS_REQUIRED(gone.mu) { return gone.stored.size() == 3; };
  EXPECT_TRUE(gone.mu.AwaitWithTimeout(absl::Condition(&copied), kPatience));
}

TEST_F(ReplicatorTest, APeerThatFailsHalfwayIsReplacedByTheNext) {
  Start();
  const auto peers = PeersOf("chat");
  {
    absl::MutexLock lock(&cluster_.peer(peers[0]).mu);
    cluster_.peer(peers[0]).write = absl::DeadlineExceededError("hangs");
  }
  const ReplicationJob job = Job("chat", 3);
  Replicate(job);
  EXPECT_TRUE(cluster_.peer(peers[0]).Stored().empty());
  EXPECT_EQ(cluster_.peer(peers[1]).Stored(), KeysOf(job));
}

TEST_F(ReplicatorTest, ADrainingPeerGetsNothingNew) {
  Start();
  const auto peers = PeersOf("chat");
  Replicate(Job("chat", 2));
  {
    absl::MutexLock lock(&cluster_.peer(peers[0]).mu);
    cluster_.peer(peers[0]).draining = true;
  }
  Replicate(Job("chat", 4));
  EXPECT_EQ(cluster_.peer(peers[0]).Stored().size(), 2u);
  EXPECT_EQ(cluster_.peer(peers[1]).Stored().size(), 4u);
  EXPECT_EQ(peers_.failures(), 0u);
}

TEST_F(ReplicatorTest, AChainEvictedMeanwhileIsCountedAndBlamedOnNobody) {
  Start();
  source_.KeepOnly(0);
  Replicate(Job("chat", 4));
  EXPECT_EQ(replicator_->counters().chains_gone, 1u);
  EXPECT_EQ(peers_.failures(), 0u);
  EXPECT_EQ(source_.opened(), 1) << "the next peer would find the same";
  source_.KeepOnly(2);
  Replicate(Job("chat", 4));
  EXPECT_EQ(cluster_.peer(PeersOf("chat")[0]).Stored().size(), 2u);
}

TEST_F(ReplicatorTest, EachTenantsChainsGoOverALinkOfItsOwn) {
  Start();
  ReplicationJob job = Job("chat", 4);
  Replicate(job);
  job.tenant = {"spiffe://other"};
  Replicate(job);
  FakePeer& peer = cluster_.peer(PeersOf("chat")[0]);
  EXPECT_THAT(peer.Tenants(), ::testing::ElementsAre(kDefaultTenant, "spiffe://other"));
}

TEST_F(ReplicatorTest, AChainThatFoundTooFewPeersGetsItsCopiesWhenMembersCome) {
  membership_.Set({{.id = {"shard-0"}, .address = "127.0.0.1:7000"}});
  Start();
  const ReplicationJob job = Job("chat", 4);
  Replicate(job);
  EXPECT_EQ(replicator_->counters().chains_short, 1u);
  membership_.Set({{.id = {"shard-0"}, .address = "127.0.0.1:7000"},
                   {.id = {"shard-2"}, .address = "127.0.0.1:7002"}});
  ASSERT_TRUE(replicator_->WaitIdle(kPatience));
  EXPECT_EQ(cluster_.peer("shard-2").Stored(), KeysOf(job));
}

TEST_F(ReplicatorTest, SubmittingNeverWaitsAndTheOldestChainsAreDroppedFirst) {
  absl::Notification go;
  for (const ShardId& id : ids_) {
    absl::MutexLock lock(&cluster_.peer(id.name).mu);
    cluster_.peer(id.name).hold = &go;
  }
  Start();
  constexpr int kChains = 300;
  for (int i = 0; i < kChains; ++i) replicator_->Submit(Job(absl::StrCat("chat-", i), 100));
  const ReplicatorCounters counters = replicator_->counters();
  EXPECT_LE(counters.blocks_queued, limits::kReplicationQueueBlocksMax);
  EXPECT_GE(counters.chains_dropped,
            kChains - limits::kReplicationQueueBlocksMax / 100 - limits::kReplicationThreads);
  go.Notify();
  ASSERT_TRUE(replicator_->WaitIdle(kPatience));
  const std::string last = absl::StrCat("chat-", kChains - 1);
  EXPECT_EQ(cluster_.peer(PeersOf(last)[0]).Stored().count(Job(last, 1).keys[0]), 1u);
}

}  // namespace
}  // namespace reprise::cluster
