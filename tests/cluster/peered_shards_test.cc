// What shards do for each other when somebody asks for it: chains are pulled, and handed over
// before a shard stops. Real servers and links; the bytes go by the stream lane.
#include "tests/cluster/peered_shards.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "proto/types/refusal.h"

namespace reprise::testing {
namespace {

const CacheSpec kSpec = SpecOf(16 << 10);
constexpr uint64_t kMiB = 1 << 20;
constexpr uint32_t kBlocks = 20;

class PeeredShardsTest : public ::testing::Test {
 protected:
  ~PeeredShardsTest() override {
    for (size_t i = 0; i < shards_.size(); ++i) {
      EXPECT_TRUE(Quiet(shards_[i])) << i;
      EXPECT_EQ(shards_[i].shard().engine().CheckInvariants(), absl::OkStatus()) << i;
    }
  }
  // Nothing is leased or reserved any more; peers may be attached.
  static bool Quiet(PeeredShard& shard) {
    const absl::Time deadline = Soon();
    while (absl::Now() < deadline) {
      const auto now = shard.shard().engine().Describe(Tenant{"default"});
      if (now.leases + now.reservations == 0) return true;
      std::this_thread::yield();
    }
    return false;
  }
  std::vector<BlockKey> StoreAt(size_t i, const std::string& name, uint32_t blocks = kBlocks) {
    const std::vector<BlockKey> keys = ChainNamed(name, blocks);
    const auto link = shards_[i].shard().Connect();
    EXPECT_EQ(StoreChain(*link, kSpec, keys).value_or(0), blocks);
    return keys;
  }
  uint32_t FetchAt(size_t i, const std::vector<BlockKey>& keys) {
    return FetchChain(*shards_[i].shard().Connect(), kSpec, keys).value_or(0);
  }
  v1::DrainResponse AwaitDrained(size_t i, v1::DrainRequest request = {}) {
    v1::DrainResponse response = shards_[i].Drain(request);
    request.clear_again();
    const absl::Time deadline = Soon();
    while (!response.done() && absl::Now() < deadline) response = shards_[i].Drain(request);
    EXPECT_TRUE(response.done());
    return response;
  }

  PeeredShards shards_{{{}, {}, {}}};
};

TEST_F(PeeredShardsTest, AChainIsPulledFromWhereItIsAndReadByteForByte) {
  const auto keys = StoreAt(2, "chat");
  const auto run = shards_[0].Pull(kSpec, keys);
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->run_blocks, kBlocks);
  EXPECT_EQ(run->pulled_blocks, kBlocks);
  EXPECT_EQ(run->from.name, "c");
  EXPECT_EQ(FetchAt(0, keys), kBlocks);
  EXPECT_EQ(FetchAt(2, keys), kBlocks) << "it stays where it was";
}

TEST_F(PeeredShardsTest, OnlyWhatIsMissingMoves) {
  const auto keys = StoreAt(1, "chat");
  StoreAt(0, "chat", 12);
  const auto run = shards_[0].Pull(kSpec, keys, "b");
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->run_blocks, kBlocks);
  EXPECT_EQ(run->pulled_blocks, kBlocks - 12);
  EXPECT_EQ(FetchAt(0, keys), kBlocks);
}

TEST_F(PeeredShardsTest, AChainThatNobodyHasIsNoError) {
  const auto run = shards_[0].Pull(kSpec, ChainNamed("nowhere", 4));
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->run_blocks, 0u);
  EXPECT_EQ(run->from.name, "");
}

TEST_F(PeeredShardsTest, AShardThatIsNoMemberIsNotAsked) {
  const auto run = shards_[0].Pull(kSpec, ChainNamed("chat", 4), shards_[1].shard().address());
  EXPECT_EQ(RefusalReason(run.status()), "PEER_UNKNOWN") << run.status();
}

TEST_F(PeeredShardsTest, ManyPullsOfOneChainStoreItOnce) {
  const auto keys = StoreAt(1, "chat");
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] { EXPECT_TRUE(shards_[0].Pull(kSpec, keys).ok()); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(FetchAt(0, keys), kBlocks);
  EXPECT_EQ(shards_[0].shard().engine().Describe(Tenant{"default"}).blocks, kBlocks);
}

TEST_F(PeeredShardsTest, WhatIsDrainedIsOnTheOthersAndTheConversationGoesOnThere) {
  std::vector<std::vector<BlockKey>> chains;
  for (int i = 0; i < 10; ++i) chains.push_back(StoreAt(0, absl::StrCat("chat-", i)));
  const v1::DrainResponse drained = AwaitDrained(0);
  EXPECT_EQ(drained.shard_id(), "a");
  EXPECT_EQ(drained.chains(), 10u);
  EXPECT_EQ(drained.chains_safe(), 10u);
  EXPECT_EQ(drained.blocks_copied(), 10u * kBlocks);
  for (const auto& keys : chains) EXPECT_EQ(FetchAt(1, keys) + FetchAt(2, keys), kBlocks);
}

TEST_F(PeeredShardsTest, AShardThatIsDrainedIsReadAndPulledFromAndNotWrittenTo) {
  const auto keys = StoreAt(0, "chat");
  const auto attached = shards_[0].shard().Connect();
  AwaitDrained(0);
  EXPECT_EQ(FetchChain(*attached, kSpec, keys).value_or(0), kBlocks) << "who is attached stays so";
  const auto opened = attached->OpenSpec(kSpec, Soon());
  const auto reserved =
      attached->Reserve({.spec = opened->handle, .keys = ChainNamed("new", 2)}, Soon());
  EXPECT_EQ(RefusalReason(reserved.status()), "DRAINING") << reserved.status();
  EXPECT_EQ(RefusalReason(shards_[0].Pull(kSpec, ChainNamed("other", 2)).status()), "DRAINING");
  // Whichever of the two has no copy.
  const size_t other = shards_[1].Run(kSpec, keys) == 0 ? 1 : 2;
  const auto run = shards_[other].Pull(kSpec, keys, "a");
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->pulled_blocks, kBlocks);
}

TEST_F(PeeredShardsTest, ADrainAskedForAgainFindsAllSafe) {
  StoreAt(0, "chat");
  EXPECT_EQ(AwaitDrained(0).blocks_copied(), kBlocks);
  v1::DrainRequest again;
  again.set_again(true);
  const v1::DrainResponse drained = AwaitDrained(0, again);
  EXPECT_EQ(drained.chains_safe(), 1u);
  EXPECT_EQ(drained.blocks_copied(), kBlocks);
}

TEST_F(PeeredShardsTest, ADrainWithoutTimeLeavesTheChainsAndSaysSo) {
  for (int i = 0; i < 50; ++i) StoreAt(0, absl::StrCat("chat-", i), 2);
  shards_[1].shard().server().StartDraining();
  shards_[2].shard().server().StartDraining();
  const v1::DrainResponse drained = AwaitDrained(0);
  EXPECT_EQ(drained.chains(), 50u);
  EXPECT_EQ(drained.chains_safe(), 0u);
}

// What is hot on a full peer is not dropped for what is cold here.
TEST(PeeredShardsRoomTest, AFullPeerKeepsTheHotterPartOfItsOwn) {
  PeeredShards shards({{.dram_bytes = 4 * kMiB}, {.dram_bytes = 4 * kMiB}});
  // 16 KiB blocks: 256 in a shard. Both are full.
  std::vector<std::vector<BlockKey>> mine, theirs;
  for (int i = 0; i < 11; ++i) {
    for (const size_t at : {0, 1}) {
      const auto keys = ChainNamed(absl::StrCat("chat-", at, "-", i), kBlocks);
      ASSERT_TRUE(StoreChain(*shards[at].shard().Connect(), kSpec, keys).ok());
      (at == 0 ? mine : theirs).push_back(keys);
    }
  }
  v1::DrainResponse drained = shards[0].Drain();
  const absl::Time deadline = Soon();
  while (!drained.done() && absl::Now() < deadline) drained = shards[0].Drain();
  ASSERT_TRUE(drained.done());
  EXPECT_LT(drained.chains_safe(), drained.chains());
  EXPECT_EQ(shards[1].Run(kSpec, mine.back()), kBlocks) << "the one used last";
  EXPECT_EQ(shards[1].Run(kSpec, theirs.back()), kBlocks) << "the one used last there";
  uint32_t kept = 0;
  for (const auto& keys : theirs) kept += shards[1].Run(kSpec, keys);
  // Half of its memory is taken, two chains at most beyond, and the watermark; not all of it.
  EXPECT_GE(kept, 11 * kBlocks / 4);
}

// Blocks that lie in device memory on both sides, which the CPU may not touch.
TEST(PeeredShardsGpuTest, AChainInDeviceMemoryIsPulledIntoDeviceMemory) {
  const auto guarded = [] {
    auto control = std::make_shared<HostHbmControl>();
    control->guarded = true;
    return control;
  };
  PeeredShards shards(
      {{.hbm_bytes = 8 * kMiB, .hbm = guarded()}, {.hbm_bytes = 8 * kMiB, .hbm = guarded()}});
  const auto keys = ChainNamed("chat", kBlocks);
  ASSERT_EQ(StoreChain(*shards[1].shard().Connect(), kSpec, keys).value_or(0), kBlocks);
  const auto run = shards[0].Pull(kSpec, keys);
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->pulled_blocks, kBlocks);
  const auto link = shards[0].shard().Connect();
  const auto acquired = link->Acquire(link->OpenSpec(kSpec, Soon())->handle, keys, 0, Soon());
  ASSERT_TRUE(acquired.ok()) << acquired.status();
  EXPECT_THAT(acquired->tiers, ::testing::ElementsAre(TierRun{Tier::kHbm, kBlocks}));
  EXPECT_EQ(FetchChain(*link, kSpec, keys).value_or(0), kBlocks);
}

}  // namespace
}  // namespace reprise::testing
