// Replication between shard processes.
#include <gtest/gtest.h>

#include "cluster/placement/placement.h"
#include "tests/cluster/router_cluster.h"

namespace reprise::testing {
namespace {

const CacheSpec kSpec = SpecOf(16 << 10);
constexpr uint32_t kBlocks = 20;

std::vector<std::string> OrderOf(const std::string& session, int shards) {
  std::vector<ShardId> ids;
  for (int i = 0; i < shards; ++i) ids.push_back({absl::StrCat("shard-", i)});
  std::vector<std::string> order;
  for (const ShardId& id : cluster::PlacementOrder(session, ids)) order.push_back(id.name);
  return order;
}

TEST(ReplicationProcessTest, AGrowingConversationIsCopiedToTheNextShardOfItsOrder) {
  RouterCluster cluster;
  cluster.Start(4);
  for (int s = 0; s < 6; ++s) {
    const std::string session = absl::StrCat("chat-", s);
    const auto order = OrderOf(session, 4);
    const auto keys = ChainNamed(session, kBlocks);
    const auto link = cluster.Link(order[0]);
    for (uint32_t turn = 5; turn <= kBlocks; turn += 5) {
      ASSERT_TRUE(StoreSession(*link, kSpec, std::span(keys).first(turn), session).ok());
    }
    ASSERT_TRUE(cluster.AwaitRuns(kSpec, keys, {{order[0], kBlocks}, {order[1], kBlocks}}));
    const auto fetched = FetchChain(*cluster.Link(order[1]), kSpec, keys);
    ASSERT_TRUE(fetched.ok()) << fetched.status();
    EXPECT_EQ(*fetched, kBlocks);
  }
}

TEST(ReplicationProcessTest, AReplicaIsNotCopiedOn) {
  RouterCluster cluster;
  cluster.Start(3);
  const auto order = OrderOf("chat", 3);
  const auto keys = ChainNamed("chat", kBlocks);
  ASSERT_TRUE(StoreSession(*cluster.Link(order[0]), kSpec, keys, "chat").ok());
  ASSERT_TRUE(cluster.AwaitRuns(kSpec, keys, {{order[0], kBlocks}, {order[1], kBlocks}}));
  EXPECT_EQ(cluster.ShardCounter(order[0], "replication_blocks_copied_total"), kBlocks);
  EXPECT_EQ(cluster.ShardCounter(order[1], "replication_chains_submitted_total"), 0u);
  EXPECT_EQ(cluster.ShardCounter(order[2], "replication_chains_submitted_total"), 0u);
}

TEST(ReplicationProcessTest, WhenTheNextShardIsDeadTheOneAfterItHasTheCopy) {
  RouterCluster cluster;
  cluster.Start(3);
  const auto order = OrderOf("chat", 3);
  cluster.shard(order[1]).Kill();
  const auto keys = ChainNamed("chat", kBlocks);
  ASSERT_TRUE(StoreSession(*cluster.Link(order[0]), kSpec, keys, "chat").ok());
  ASSERT_TRUE(cluster.AwaitRuns(kSpec, keys, {{order[0], kBlocks}, {order[2], kBlocks}}));
}

TEST(ReplicationProcessTest, AHungShardHoldsUpNothingForLong) {
  RouterCluster cluster;
  cluster.Start(3);
  const auto order = OrderOf("chat", 3);
  cluster.shard(order[1]).Stop();
  const auto keys = ChainNamed("chat", kBlocks);
  ASSERT_TRUE(StoreSession(*cluster.Link(order[0]), kSpec, keys, "chat").ok());
  ASSERT_TRUE(cluster.AwaitRuns(kSpec, keys, {{order[0], kBlocks}, {order[2], kBlocks}}));
}

TEST(ReplicationProcessTest, ThreeCopiesAreThreeShards) {
  RouterCluster cluster(/*replication=*/3);
  cluster.Start(4);
  const auto order = OrderOf("chat", 4);
  const auto keys = ChainNamed("chat", kBlocks);
  ASSERT_TRUE(StoreSession(*cluster.Link(order[0]), kSpec, keys, "chat").ok());
  ASSERT_TRUE(cluster.AwaitRuns(kSpec, keys,
                                {{order[0], kBlocks}, {order[1], kBlocks}, {order[2], kBlocks}}));
}

TEST(ReplicationProcessTest, OneCopyIsOneShard) {
  RouterCluster cluster(/*replication=*/1);
  cluster.Start(2);
  const auto keys = ChainNamed("chat", kBlocks);
  ASSERT_TRUE(StoreSession(*cluster.Link("shard-0"), kSpec, keys, "chat").ok());
  ASSERT_TRUE(cluster.AwaitRuns(kSpec, keys, {{"shard-0", kBlocks}}));
  EXPECT_TRUE(Eventually(
      [&] { return cluster.ShardCounter("shard-0", "replication_chains_done_total") == 1; }));
  EXPECT_EQ(cluster.ShardCounter("shard-0", "replication_blocks_copied_total"), 0u);
}

// A clean stop waits for the copies of what was committed last, and makes one more of them, since
// its own goes.
TEST(ReplicationProcessTest, AStoppingShardFinishesItsCopies) {
  RouterCluster cluster;
  cluster.Start(3);
  const auto order = OrderOf("chat", 3);
  // The shard knows its peers once something was copied.
  const auto before = ChainNamed("before", 1);
  ASSERT_TRUE(StoreSession(*cluster.Link(order[0]), kSpec, before, "chat").ok());
  ASSERT_TRUE(cluster.AwaitRuns(kSpec, before, {{order[0], 1}, {order[1], 1}}));
  const auto keys = ChainNamed("chat", 200);
  ASSERT_TRUE(StoreSession(*cluster.Link(order[0]), kSpec, keys, "chat").ok());
  cluster.shard(order[0]).Signal(SIGTERM);
  EXPECT_EQ(cluster.shard(order[0]).Wait(kPatience), std::optional<int>(0));
  ASSERT_TRUE(cluster.AwaitRuns(kSpec, keys, {{order[1], 200}, {order[2], 200}}));
}

}  // namespace
}  // namespace reprise::testing
