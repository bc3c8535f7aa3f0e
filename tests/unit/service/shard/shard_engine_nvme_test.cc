// A tier on a local disk, below host memory.
#include <filesystem>
#include <utility>

#include "tests/support/nameless_file.h"
#include "tests/unit/service/shard/engine_fixture.h"

namespace reprise::shard {
namespace {

using ::testing::ElementsAre;

// Two extents of 32 slots in dram and four on disk; chains of 8 blocks.
class OnDisk : public EngineTest {
 protected:
  static constexpr size_t kLength = 8;
  static constexpr size_t kFillDram = 8;  // chains
  static constexpr size_t kFillDisk = 16;

  void SetUp() override { StartOn(/*hbm_bytes=*/0); }
  void StartOn(uint64_t hbm_bytes) {
    control_ = std::make_shared<reprise::testing::HostHbmControl>();
    control_->guarded = true;
    StartWith({.dram_bytes = 4 * kMiB,
               .hbm_bytes = hbm_bytes,
               .hbm_device = std::make_unique<reprise::testing::HostHbmDevice>(control_),
               .nvme_bytes = 8 * kMiB,
               .nvme_folder = folder_,
               .background_eviction = false});
  }

  void StartWithoutDram() {
    StartWith({.hbm_bytes = 4 * kMiB,
               .hbm_device = std::make_unique<reprise::testing::HostHbmDevice>(control_),
               .nvme_bytes = 8 * kMiB,
               .nvme_folder = folder_,
               .background_eviction = false});
  }

  static std::vector<BlockKey> Chain(size_t i) { return ChainNamed(absl::StrCat("c", i), kLength); }
  void Fill(size_t first, size_t chains) {
    for (size_t i = first; i < first + chains; ++i) {
      ASSERT_EQ(Store(Chain(i)).commit.committed, kLength) << i;
    }
  }
  void ExpectStored(size_t first, size_t chains) {
    for (size_t i = first; i < first + chains; ++i) {
      const AcquireResult acquired = Acquire(Chain(i));
      ASSERT_EQ(acquired.run_blocks, kLength) << i;
      ExpectReads(acquired.lease, Chain(i));
      EXPECT_EQ(*engine_->Release(me_, {{acquired.lease}}), 1u);
    }
  }

  const std::string folder_ = std::filesystem::temp_directory_path().string();
};

TEST_F(OnDisk, WhatIsTooColdForMemoryGoesToTheDiskAndComesBackByteForByte) {
  Fill(0, kFillDram + 4);
  for (size_t i = 0; i < 4; ++i) EXPECT_THAT(TiersOf(Chain(i)), ElementsAre(Nvme(kLength))) << i;
  for (size_t i = 4; i < kFillDram + 4; ++i) {
    EXPECT_THAT(TiersOf(Chain(i)), ElementsAre(Dram(kLength))) << i;
  }
  ExpectStored(0, kFillDram + 4);
  const std::vector<TierUse> tiers = engine_->Describe(Tenant{"default"}).tiers;
  ASSERT_EQ(tiers.size(), 2u);
  EXPECT_EQ(tiers[1].tier, Tier::kNvme);
  EXPECT_EQ(tiers[1].capacity_bytes, 8 * kMiB);
  EXPECT_EQ(tiers[1].used_bytes, 4 * kLength * kBlockBytes);
}

TEST_F(OnDisk, OnlyTheDiskDropsBlocks) {
  Fill(0, kFillDram + kFillDisk);
  EXPECT_EQ(CounterValue("evicted_own_space_blocks_total"), 0u);
  ExpectStored(0, kFillDram + kFillDisk);
  Fill(100, 2);
  EXPECT_EQ(CounterValue("evicted_own_space_blocks_total"), 2 * kLength);
}

TEST_F(OnDisk, AReaderIsToldThatNoLaneCanHandOutWhatLiesThere) {
  Fill(0, kFillDram + 1);
  const AcquireResult acquired = Acquire(Chain(0));
  const auto opened = engine_->OpenRead(me_, acquired.lease, 0, 1);
  ASSERT_TRUE(opened.ok());
  EXPECT_EQ(opened->front().memory, lanes::MemoryKind::kFile);
  EXPECT_FALSE(engine_->Export(opened->front().bytes.data()).has_value());
}

TEST_F(OnDisk, ALongPromptIsWrittenToTheDiskWhereMemoryHasNoRoom) {
  const std::vector<BlockKey> keys = ChainNamed("long", 100);
  ASSERT_EQ(Store(keys).commit.committed, 100u);
  EXPECT_THAT(TiersOf(keys), ElementsAre(Dram(64), Nvme(36)));
  const AcquireResult acquired = Acquire(keys);
  ExpectReads(acquired.lease, keys);
}

TEST_F(OnDisk, BlocksMoveFromTheGpuThroughMemoryToTheDisk) {
  StartOn(/*hbm_bytes=*/4 * kMiB);
  Fill(0, 3 * kFillDram);
  EXPECT_THAT(TiersOf(Chain(0)), ElementsAre(Nvme(kLength)));
  EXPECT_THAT(TiersOf(Chain(kFillDram)), ElementsAre(Dram(kLength)));
  EXPECT_THAT(TiersOf(Chain(2 * kFillDram)), ElementsAre(Hbm(kLength)));
  ExpectStored(0, 3 * kFillDram);
}

TEST_F(OnDisk, FromAGpuToTheDiskWithNoMemoryBetween) {
  StartWithoutDram();
  Fill(0, 2 * kFillDram);
  EXPECT_THAT(TiersOf(Chain(0)), ElementsAre(Nvme(kLength)));
  EXPECT_THAT(TiersOf(Chain(kFillDram)), ElementsAre(Hbm(kLength)));
  ExpectStored(0, 2 * kFillDram);
}

TEST_F(OnDisk, ADemoteHintTakesAPromptOneTierDownAtATime) {
  StartOn(/*hbm_bytes=*/4 * kMiB);
  Fill(0, 1);
  const auto demote = [&] {
    return engine_->Hint(me_,
                         {.spec = spec_, .keys = Chain(0), .hint = {.verb = HintVerb::kDemote}});
  };
  EXPECT_EQ(demote()->blocks, kLength);
  EXPECT_THAT(TiersOf(Chain(0)), ElementsAre(Dram(kLength)));
  EXPECT_EQ(demote()->blocks, kLength);
  EXPECT_THAT(TiersOf(Chain(0)), ElementsAre(Nvme(kLength)));
  EXPECT_EQ(demote()->outcome, HintOutcome::kMissing);
  ExpectStored(0, 1);
}

TEST_F(OnDisk, WhatADemoteHintBringsIntoFullMemoryMovesTheColdestThereOn) {
  StartOn(/*hbm_bytes=*/4 * kMiB);
  Fill(0, 2 * kFillDram);
  ASSERT_THAT(TiersOf(Chain(0)), ElementsAre(Dram(kLength)));
  const auto demoted = engine_->Hint(
      me_, {.spec = spec_, .keys = Chain(2 * kFillDram - 1), .hint = {.verb = HintVerb::kDemote}});
  EXPECT_EQ(demoted->blocks, kLength);
  EXPECT_THAT(TiersOf(Chain(2 * kFillDram - 1)), ElementsAre(Dram(kLength)));
  EXPECT_THAT(TiersOf(Chain(0)), ElementsAre(Nvme(kLength)));
  ExpectStored(0, 2 * kFillDram);
}

TEST_F(OnDisk, ABlockOnItsWayToADiskThatIsLostMeanwhileStaysWhereItIs) {
  StartWithoutDram();
  const auto demote = [&](size_t i) {
    return *engine_->Hint(me_,
                          {.spec = spec_, .keys = Chain(i), .hint = {.verb = HintVerb::kDemote}});
  };
  Fill(0, 2);
  ASSERT_EQ(demote(0).blocks, kLength);
  {
    const AcquireResult cold = Acquire(Chain(0));
    const auto opened = engine_->OpenRead(me_, cold.lease, 0, 1);
    ASSERT_TRUE(opened.ok());
    bool first = true;
    // In the middle of a move somebody else finds that the disk fails, and what lies there goes.
    control_->before_copy = [&] {
      if (!std::exchange(first, false)) return;
      EXPECT_TRUE(reprise::testing::EmptyNamelessFileIn(folder_));
      std::vector<uint8_t> bytes(kBlockBytes);
      EXPECT_FALSE(engine_->CopyToHost(opened->front().bytes, bytes).ok());
      engine_->Tick();
    };
    EXPECT_EQ(demote(1).blocks, 0u);
    control_->before_copy = nullptr;
  }
  ExpectSound();
  EXPECT_EQ(Run(Chain(0)), 0u);
  EXPECT_THAT(TiersOf(Chain(1)), ElementsAre(Hbm(kLength)));
  ExpectStored(1, 1);
}

TEST_F(OnDisk, ADiskThatFailsIsATierLess) {
  Fill(0, kFillDram + 4);
  const AcquireResult cold = Acquire(Chain(0));
  const auto opened = engine_->OpenRead(me_, cold.lease, 0, 1);
  ASSERT_TRUE(opened.ok());
  ASSERT_TRUE(reprise::testing::EmptyNamelessFileIn(folder_));
  std::vector<uint8_t> bytes(kBlockBytes);
  EXPECT_EQ(CodeAndReason(engine_->CopyToHost(opened->front().bytes, bytes)),
            "INTERNAL SHARD_DISK_LOST");
  engine_->Tick();
  EXPECT_EQ(CodeAndReason(engine_->OpenRead(me_, cold.lease, 0, 1).status()),
            "INTERNAL SHARD_DISK_LOST");
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(Run(Chain(i)), 0u) << i;
  ExpectStored(4, kFillDram);
  Fill(100, 4);  // memory alone, and what is coldest there is dropped
  ExpectStored(100, 4);
  EXPECT_TRUE(engine_->Describe(Tenant{"default"}).tiers[1].lost);
  EXPECT_EQ(CounterValue("lost_blocks_total"), 4 * kLength);
}

}  // namespace
}  // namespace reprise::shard
