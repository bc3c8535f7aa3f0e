#include "tests/unit/service/shard/engine_fixture.h"

namespace reprise::shard {
namespace {

class Evicting : public EngineTest {
 protected:
  void SetUp() override { Start(4 * kMiB); }  // two extents of 32 slots
  static constexpr size_t kSlots = 64;

  // Fills the pool with chains "fill0", "fill1", ... of `length` blocks, the first one coldest.
  void Fill(size_t length) {
    for (size_t i = 0; i < kSlots / length; ++i) {
      ASSERT_EQ(Store(ChainNamed(absl::StrCat("fill", i), length)).commit.committed, length);
    }
  }
};

TEST_F(Evicting, TheTailOfTheColdestChainLeavesFirst) {
  Fill(8);
  EXPECT_EQ(Store(ChainNamed("new", 3)).commit.committed, 3u);
  EXPECT_EQ(Run(ChainNamed("fill0", 8)), 5u);
  EXPECT_EQ(Run(ChainNamed("fill1", 8)), 8u);
  EXPECT_EQ(CounterValue("evicted_own_space_blocks_total"), 3u);
}

TEST_F(Evicting, AcquireMakesAChainWarmAndLookupDoesNot) {
  Fill(8);
  engine_->Release(me_, {{Acquire(ChainNamed("fill0", 8)).lease}}).IgnoreError();
  Run(ChainNamed("fill1", 8));
  Store(ChainNamed("new", 2));
  EXPECT_EQ(Run(ChainNamed("fill0", 8)), 8u);
  EXPECT_EQ(Run(ChainNamed("fill1", 8)), 6u);
}

TEST_F(Evicting, LeasedBlocksAreNeverEvicted) {
  Fill(8);
  const std::vector<BlockKey> leased = ChainNamed("fill0", 8);
  const LeaseId lease = Acquire(leased, limits::kLeaseTtlMax).lease;
  for (int i = 0; i < 20; ++i) {
    Store(ChainNamed(absl::StrCat("new", i), 10));
    engine_->EvictToWatermark();
    ASSERT_EQ(Run(leased), 8u);
  }
  ExpectReads(lease, leased);
  engine_->Release(me_, {{lease}}).IgnoreError();
  for (int i = 0; i < 8; ++i) Store(ChainNamed(absl::StrCat("more", i), 10));
  EXPECT_LT(Run(leased), 8u);
}

// The oldest block of all is leased and cannot go; that must not cost its key space the others.
TEST_F(Evicting, ALeasedBlockDoesNotMakeItsKeySpaceLookCold) {
  CacheSpec other = kSpec;
  other.model = "other";
  const SpecHandle theirs = Open(me_, other);
  const auto store_theirs = [&](int i) {
    return Store(me_, other, {.spec = theirs, .keys = ChainNamed(absl::StrCat("theirs", i), 4)});
  };
  Store(ChainNamed("ours0", 4));
  Acquire(ChainNamed("ours0", 4), limits::kLeaseTtlMax);
  for (int i = 0; i < 8; ++i) ASSERT_EQ(store_theirs(i).commit.committed, 4u);
  for (int i = 1; i < 8; ++i) Store(ChainNamed(absl::StrCat("ours", i), 4));
  engine_->EvictToWatermark();
  for (int i = 0; i < 8; ++i) EXPECT_EQ(Run(ChainNamed(absl::StrCat("ours", i), 4)), 4u) << i;
  EXPECT_EQ(Run(me_, theirs, ChainNamed("theirs0", 4)), 0u);
}

TEST_F(Evicting, PinnedBlocksAreNotEvictedThoughTheirLeaseIsOver) {
  Fill(8);
  const std::vector<BlockKey> chain = ChainNamed("fill0", 8);
  auto opened = engine_->OpenRead(me_, Acquire(chain, absl::Seconds(1)).lease, 0, 0);
  ASSERT_TRUE(opened.ok());
  clock_.Advance(absl::Seconds(2));
  for (int i = 0; i < 10; ++i) Store(ChainNamed(absl::StrCat("new", i), 10));
  EXPECT_EQ(Run(chain), 8u);
  for (size_t i = 0; i < 8; ++i) EXPECT_TRUE(HasContent(chain[i], kSeed, (*opened)[i].bytes));
}

TEST_F(Evicting, WhenEverythingIsLeasedReserveIsRefusedAndNothingIsLost) {
  Fill(8);
  for (int i = 0; i < 8; ++i) Acquire(ChainNamed(absl::StrCat("fill", i), 8));
  EXPECT_EQ(
      CodeAndReason(engine_->Reserve(me_, {.spec = spec_, .keys = ChainNamed("new", 1)}).status()),
      "RESOURCE_EXHAUSTED NO_SPACE");
  for (int i = 0; i < 8; ++i) EXPECT_EQ(Run(ChainNamed(absl::StrCat("fill", i), 8)), 8u);
}

TEST_F(Evicting, AWriterDoesNotEvictTheChainThatItContinues) {
  std::vector<BlockKey> chain = ChainNamed("a", kSlots + 10);
  Store({chain.begin(), chain.begin() + kSlots});
  // Everything that could leave is what the new block would hang from.
  EXPECT_EQ(CodeAndReason(engine_->Reserve(me_, {.spec = spec_, .keys = chain}).status()),
            "RESOURCE_EXHAUSTED NO_SPACE");
  EXPECT_EQ(Run(chain), kSlots);
}

TEST_F(Evicting, ABlockIsNotEvictedWhileSomethingIsReservedBeneathIt) {
  const std::vector<BlockKey> chain = ChainNamed("a", 2);
  Store({chain[0]});
  const auto reserved = engine_->Reserve(me_, {.spec = spec_, .keys = chain});
  ASSERT_TRUE(reserved.ok());
  for (int i = 0; i < 10; ++i) Store(ChainNamed(absl::StrCat("new", i), 10));
  const Checksum128 checksum = Write(me_, reserved->reservation, 1, chain[1], kSpec);
  EXPECT_EQ(engine_->Commit(me_, {.reservation = reserved->reservation, .checksums = {{checksum}}})
                ->committed,
            1u);
  EXPECT_EQ(Run(chain), 2u);
}

TEST_F(Evicting, TheBackgroundBringsThePoolFromTheHighToTheLowWatermark) {
  Fill(8);
  engine_->EvictToWatermark();
  const double fill = static_cast<double>(UsedBytes()) / (4 * kMiB);
  EXPECT_LE(fill, limits::kEvictLowWatermark);
  EXPECT_GT(fill, limits::kEvictLowWatermark - 0.02);
  EXPECT_LT(Run(ChainNamed("fill0", 8)), 8u);
  EXPECT_EQ(Run(ChainNamed("fill7", 8)), 8u);
  const uint64_t evicted = CounterValue("evicted_watermark_blocks_total");
  engine_->EvictToWatermark();  // below the high watermark nothing happens
  EXPECT_EQ(CounterValue("evicted_watermark_blocks_total"), evicted);
}

TEST_F(Evicting, TheBackgroundThreadEvictsByItself) {
  Start(4 * kMiB, /*background_eviction=*/true);
  auto watch = engine_->Watch();
  ASSERT_TRUE(watch.ok());
  Fill(8);
  size_t removed = 0;
  while (removed < 7) {  // from 64 blocks to 57
    const auto event = (*watch)->Next(absl::Now() + absl::Seconds(60));
    ASSERT_TRUE(event.ok() && event->has_value());
    if ((*event)->kind == BlockEvent::Kind::kRemoved) removed += (*event)->keys.size();
  }
  EXPECT_LE(UsedBytes(), 57 * kBlockBytes);
}

class Reclaiming : public EngineTest {
 protected:
  void SetUp() override {
    Start(8 * kMiB);  // four extents
    large_ = Open(me_, kLarge);
  }
  Stored StoreLarge(const std::vector<BlockKey>& keys) {
    return Store(me_, kLarge, {.spec = large_, .keys = keys});
  }
  const CacheSpec kLarge = SmallSpec(128, 64);  // 512 KiB: four in an extent
  SpecHandle large_;
};

TEST_F(Reclaiming, ASpecTakesMemoryFromAnotherThatHasAllOfIt) {
  for (int i = 0; i < 16; ++i) Store(ChainNamed(absl::StrCat("small", i), 8));
  EXPECT_EQ(UsedBytes(), 8 * kMiB);
  EXPECT_EQ(StoreLarge(ChainNamed("large", 3)).commit.committed, 3u);
  EXPECT_EQ(Run(me_, large_, ChainNamed("large", 3)), 3u);
  EXPECT_EQ(Run(ChainNamed("small15", 8)), 8u);
  EXPECT_EQ(Run(ChainNamed("small0", 8)), 0u);
  EXPECT_EQ(CounterValue("reclaimed_extents_total"), 1u);
}

TEST_F(Reclaiming, NeitherOfTwoSpecsStarves) {
  const auto small_run = [&](int i) { return Run(ChainNamed(absl::StrCat("small", i), 4)); };
  const auto large_run = [&](int i) {
    return Run(me_, large_, ChainNamed(absl::StrCat("large", i), 2));
  };
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(Store(ChainNamed(absl::StrCat("small", i), 4)).commit.committed, 4u) << i;
    EXPECT_EQ(StoreLarge(ChainNamed(absl::StrCat("large", i), 2)).commit.committed, 2u) << i;
    EXPECT_EQ(small_run(i), 4u);
    EXPECT_EQ(large_run(i), 2u);
    if (i >= 3) {
      // Both keep more than what they wrote last.
      EXPECT_EQ(small_run(i - 1), 4u) << i;
      EXPECT_EQ(large_run(i - 1), 2u) << i;
    }
    ExpectSound();
  }
}

TEST_F(Reclaiming, MovedBlocksKeepTheirBytes) {
  // 128 small blocks fill the pool; dropping every second chain leaves holes in every extent.
  std::vector<std::vector<BlockKey>> kept;
  for (int i = 0; i < 64; ++i) {
    const std::vector<BlockKey> chain = ChainNamed(absl::StrCat("small", i), 2);
    Store(chain);
    if (i % 2 == 0) kept.push_back(chain);
  }
  for (int i = 1; i < 64; i += 2) {
    ASSERT_EQ(engine_->Remove(me_, spec_, ChainNamed(absl::StrCat("small", i), 2))->removed, 2u);
  }
  EXPECT_EQ(StoreLarge(ChainNamed("large", 4)).commit.committed, 4u);
  EXPECT_GT(CounterValue("moved_blocks_total"), 0u);
  EXPECT_EQ(CounterValue("evicted_reclaim_blocks_total"), 0u);
  for (const std::vector<BlockKey>& chain : kept) ExpectReads(Acquire(chain).lease, chain);
}

TEST_F(Reclaiming, LeasedBlocksAreNeitherMovedNorEvictedForAnotherSpec) {
  std::vector<LeaseId> leases;
  for (int i = 0; i < 16; ++i) {
    const std::vector<BlockKey> chain = ChainNamed(absl::StrCat("small", i), 8);
    Store(chain);
    leases.push_back(Acquire(chain).lease);
  }
  EXPECT_EQ(CodeAndReason(StoreLarge(ChainNamed("large", 1)).status),
            "RESOURCE_EXHAUSTED NO_SPACE");
  for (int i = 0; i < 16; ++i) ExpectReads(leases[i], ChainNamed(absl::StrCat("small", i), 8));
  engine_->Release(me_, leases).IgnoreError();
  EXPECT_EQ(StoreLarge(ChainNamed("large", 1)).commit.committed, 1u);
}

TEST_F(Reclaiming, MemoryThatAnotherTenantHadIsWiped) {
  for (int i = 0; i < 16; ++i) Store(ChainNamed(absl::StrCat("small", i), 8));
  const AttachmentId stranger = Attach("stranger");
  const SpecHandle spec = Open(stranger, kLarge);
  const auto reserved = engine_->Reserve(stranger, {.spec = spec, .keys = ChainNamed("x", 1)});
  ASSERT_TRUE(reserved.ok()) << reserved.status();
  const auto slot = engine_->OpenWrite(stranger, reserved->reservation, 0);
  ASSERT_TRUE(slot.ok());
  EXPECT_TRUE(
      std::all_of(slot->bytes.begin(), slot->bytes.end(), [](uint8_t byte) { return byte == 0; }));
}

TEST_F(Reclaiming, AnExportedExtentGetsOtherMemoryWithItsNextOwner) {
  const std::vector<BlockKey> chain = ChainNamed("a", 1);
  Store(chain);
  auto opened = engine_->OpenRead(me_, Acquire(chain, absl::Seconds(1)).lease, 0, 0);
  ASSERT_TRUE(opened.ok());
  const auto before = engine_->Export((*opened)[0].bytes.data());
  ASSERT_TRUE(before.has_value());
  opened->clear();
  clock_.Advance(absl::Seconds(1));
  ASSERT_EQ(engine_->Remove(me_, spec_, chain)->removed, 1u);
  const AttachmentId stranger = Attach("stranger");
  const SpecHandle spec = Open(stranger, kLarge);
  const auto reserved = engine_->Reserve(stranger, {.spec = spec, .keys = ChainNamed("x", 16)});
  ASSERT_TRUE(reserved.ok());
  for (uint32_t i = 0; i < 16; ++i) {
    const auto slot = engine_->OpenWrite(stranger, reserved->reservation, i);
    ASSERT_TRUE(slot.ok());
    EXPECT_NE(engine_->Export(slot->bytes.data())->extent_id, before->extent_id);
  }
  int other = 0;
  EXPECT_FALSE(engine_->Export(reinterpret_cast<const uint8_t*>(&other)).has_value());
}

// Extents in device memory that another process may have mapped: 32 slots each, all with blocks.
class SharedExtents : public EngineTest {
 protected:
  static constexpr int kChains = 8;

  void SetUp() override { Fill(4 * kMiB, 0); }
  void Fill(uint64_t hbm_bytes, uint64_t dram_bytes) {
    StartTiered(hbm_bytes, dram_bytes);
    other_ = Open(me_, kOther);
    for (int i = 0; i < kChains; ++i) ASSERT_EQ(Store(Chain(i)).commit.committed, 8u);
  }
  static std::vector<BlockKey> Chain(int i) { return ChainNamed(absl::StrCat("c", i), 8); }
  // The extents that chains [first, end) lie in.
  void Share(int first, int end) {
    for (int i = first; i < end; ++i) {
      const LeaseId lease = Acquire(Chain(i)).lease;
      {
        const auto opened = engine_->OpenRead(me_, lease, 0, 1);
        ASSERT_TRUE(opened.ok()) << opened.status();
        const auto place = engine_->Export(opened->front().bytes.data());
        ASSERT_TRUE(place.has_value());
        ASSERT_TRUE(engine_->Share(place->extent, me_).ok());
      }
      ASSERT_EQ(*engine_->Release(me_, {{lease}}), 1u);
    }
  }
  Stored StoreOther(const std::string& name) {
    return Store(me_, kOther, {.spec = other_, .keys = ChainNamed(name, 4)});
  }
  uint32_t BlocksLeft() {
    uint32_t blocks = 0;
    for (int i = 0; i < kChains; ++i) blocks += Run(Chain(i));
    return blocks;
  }

  const CacheSpec kOther = SmallSpec(64, 32);
  SpecHandle other_;
};

TEST_F(SharedExtents, NobodyLosesABlockForAnExtentThatCannotChangeHands) {
  Share(0, kChains);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(CodeAndReason(StoreOther("other").status), "RESOURCE_EXHAUSTED NO_SPACE");
  }
  EXPECT_EQ(BlocksLeft(), 64u);
  EXPECT_EQ(CounterValue("moved_blocks_total"), 0u);
  engine_->Unshared(me_);
  EXPECT_EQ(StoreOther("other").commit.committed, 4u);
}

TEST_F(SharedExtents, NoBlockMovesDownForOne) {
  Fill(4 * kMiB, 4 * kMiB);
  Share(0, kChains);
  EXPECT_EQ(StoreOther("other").commit.committed, 4u);
  EXPECT_EQ(engine_->Lookup(me_, other_, ChainNamed("other", 4))->tiers.front().tier, Tier::kDram);
  EXPECT_EQ(CounterValue("demoted_blocks_total"), 0u);
  engine_->Unshared(me_);
  EXPECT_EQ(StoreOther("another").commit.committed, 4u);
  EXPECT_EQ(engine_->Lookup(me_, other_, ChainNamed("another", 4))->tiers.front().tier, Tier::kHbm);
}

TEST_F(SharedExtents, AnotherOneIsTakenAndItsOwnerUsesThemInItsPlace) {
  Share(0, kChains / 2);
  for (int i = kChains / 2; i < kChains; ++i) Acquire(Chain(i), absl::Seconds(1));
  clock_.Advance(absl::Seconds(2));  // the coldest blocks are the shared extent's
  EXPECT_EQ(StoreOther("other").commit.committed, 4u);
  EXPECT_EQ(BlocksLeft(), 32u) << "as many as had to make room, and no more";
  for (int i = kChains / 2; i < kChains; ++i) ExpectReads(Acquire(Chain(i)).lease, Chain(i));
}

}  // namespace
}  // namespace reprise::shard
