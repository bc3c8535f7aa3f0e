// Shards as processes that keep blocks in GPU memory and copy them to each other by NCCL, over the
// fake GPU and the fake libnccl; one of them stopped and killed.
#include <gtest/gtest.h>

#include <cstdlib>

#include "cluster/placement/placement.h"
#include "tests/cluster/router_cluster.h"

namespace reprise::testing {
namespace {

const CacheSpec kSpec = SpecOf(16 << 10);
constexpr uint32_t kBlocks = 20;

class NcclShardsTest : public ::testing::Test {
 protected:
  NcclShardsTest() {
    // The fake libnccl reads and writes what it takes for device memory.
    ::setenv("REPRISE_FAKE_GPU", "touch=allowed", 1);
    cluster_ = std::make_unique<RouterCluster>(
        /*replication=*/2, "reprise-shard-fake-gpu",
        std::vector<std::string>{"--hbm", "32MiB", "--nccl", "on", "--nccl-library",
                                 REPRISE_FAKE_NCCL_LIBRARY});
    cluster_->Start(2);
    const std::vector<ShardId> ids = {{"shard-0"}, {"shard-1"}};
    const std::vector<ShardId> order = cluster::PlacementOrder("chat", ids);
    home_ = order[0].name;
    peer_ = order[1].name;
  }

  std::vector<BlockKey> Store() {
    const auto keys = ChainNamed(absl::StrCat("chain-", ++chains_), kBlocks);
    EXPECT_TRUE(StoreSession(*cluster_->Link(home_), kSpec, keys, "chat").ok());
    return keys;
  }
  bool HasCopy(const std::vector<BlockKey>& keys) {
    const auto fetched = FetchChain(*cluster_->Link(peer_), kSpec, keys);
    EXPECT_FALSE(absl::IsDataLoss(fetched.status())) << fetched.status();
    return fetched.value_or(0) == kBlocks;
  }
  uint64_t ByNccl() { return cluster_->ShardCounter(peer_, "lane_nccl_blocks_written_total"); }

  // Stores chains until one is copied by NCCL, whole and right.
  bool AwaitCopyByNccl() {
    return Eventually([&] {
      const uint64_t before = ByNccl();
      const auto keys = Store();
      return Eventually([&] { return HasCopy(keys); }) && ByNccl() == before + kBlocks;
    });
  }

  std::unique_ptr<RouterCluster> cluster_;
  std::string home_, peer_;
  int chains_ = 0;
};

TEST_F(NcclShardsTest, ChainsInGpuMemoryAreCopiedByNccl) {
  ASSERT_TRUE(AwaitCopyByNccl());
  EXPECT_EQ(cluster_->ShardCounter(home_, "nccl_links_made"), 1u);
  EXPECT_EQ(cluster_->ShardCounter(peer_, "nccl_links_served"), 1u);
}

TEST_F(NcclShardsTest, AStoppedPeerBreaksTheLinkAndNothingElseAndIsCopiedToAgain) {
  ASSERT_TRUE(AwaitCopyByNccl());
  cluster_->shard(peer_).Stop();
  const auto keys = Store();
  EXPECT_TRUE(Eventually([&] { return cluster_->ShardCounter(home_, "nccl_links_made") == 0; }));
  EXPECT_EQ(FetchChain(*cluster_->Link(home_), kSpec, keys).value_or(0), kBlocks);
  cluster_->shard(peer_).Continue();
  // By which lane is for their rates to say: over a stream of host memory NCCL is not the fastest.
  EXPECT_TRUE(Eventually([&] {
    const auto again = Store();
    return Eventually([&] { return HasCopy(again); });
  }));
}

TEST_F(NcclShardsTest, AKilledPeerLeavesNoLinkAndItsSuccessorIsCopiedToByNccl) {
  ASSERT_TRUE(AwaitCopyByNccl());
  cluster_->shard(peer_).Kill();
  const auto keys = Store();
  EXPECT_TRUE(Eventually([&] { return cluster_->ShardCounter(home_, "nccl_links_made") == 0; }));
  EXPECT_EQ(FetchChain(*cluster_->Link(home_), kSpec, keys).value_or(0), kBlocks);
  cluster_->StartShard(peer_);
  cluster_->WriteMembers();
  EXPECT_TRUE(AwaitCopyByNccl());
}

}  // namespace
}  // namespace reprise::testing
