#include <utility>

#include "tests/unit/service/shard/engine_fixture.h"

namespace reprise::shard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Kind = BlockEvent::Kind;

// Two extents of 32 slots on each tier.
class Tiered : public EngineTest {
 protected:
  static constexpr size_t kSlots = 64;
  static constexpr size_t kLength = 8;

  void SetUp() override { StartTiered(4 * kMiB, 4 * kMiB); }

  static std::vector<BlockKey> Chain(size_t i) { return ChainNamed(absl::StrCat("c", i), kLength); }
  // Stores chains [first, first + chains).
  void Fill(size_t first, size_t chains) {
    for (size_t i = first; i < first + chains; ++i) {
      ASSERT_EQ(Store(Chain(i)).commit.committed, kLength) << i;
    }
  }
  // Stores the chains that fill hbm, the first one coldest.
  void FillHbm() { Fill(0, kSlots / kLength); }
  void ExpectStored(size_t first, size_t chains) {
    for (size_t i = first; i < first + chains; ++i) {
      const AcquireResult acquired = Acquire(Chain(i));
      ASSERT_EQ(acquired.run_blocks, kLength) << i;
      ExpectReads(acquired.lease, Chain(i));
      EXPECT_EQ(*engine_->Release(me_, {{acquired.lease}}), 1u);
    }
  }
  uint64_t Evicted() {
    return CounterValue("evicted_watermark_blocks_total") +
           CounterValue("evicted_own_space_blocks_total") +
           CounterValue("evicted_reclaim_blocks_total");
  }
};

TEST_F(Tiered, HbmFillsFirst) {
  FillHbm();
  for (size_t i = 0; i < kSlots / kLength; ++i) EXPECT_THAT(TiersOf(Chain(i)), ElementsAre(Hbm(8)));
  const std::vector<TierUse> tiers = engine_->Describe(Tenant{"default"}).tiers;
  ASSERT_EQ(tiers.size(), 2u);
  EXPECT_EQ(tiers[0].tier, Tier::kHbm);
  EXPECT_EQ(tiers[0].used_bytes, kSlots * kBlockBytes);
  EXPECT_EQ(tiers[0].capacity_bytes, 4 * kMiB);
  EXPECT_EQ(tiers[1].tier, Tier::kDram);
  EXPECT_EQ(tiers[1].used_bytes, 0u);
  ExpectStored(0, kSlots / kLength);
  EXPECT_EQ(control_->checksums, kSlots) << "a commit's checksums are made on the device";
  EXPECT_EQ(control_->checksum_calls, kSlots / kLength) << "all of a commit's together";
}

TEST_F(Tiered, ColdBlocksMoveToDramBeforeAnythingIsDropped) {
  FillHbm();
  Fill(8, 8);
  EXPECT_EQ(Evicted(), 0u);
  EXPECT_EQ(CounterValue("demoted_blocks_total"), kSlots);
  EXPECT_EQ(CounterValue("demoted_bytes_total"), kSlots * kBlockBytes);
  for (size_t i = 0; i < 8; ++i) EXPECT_THAT(TiersOf(Chain(i)), ElementsAre(Dram(8)));
  for (size_t i = 8; i < 16; ++i) EXPECT_THAT(TiersOf(Chain(i)), ElementsAre(Hbm(8)));
  ExpectStored(0, 16);
}

TEST_F(Tiered, OnlyWhenBothTiersAreFullTheColdestTailIsDropped) {
  Fill(0, 16);
  Fill(16, 1);
  EXPECT_EQ(Evicted(), kLength);
  EXPECT_EQ(Run(Chain(0)), 0u);
  ExpectStored(1, 16);
}

TEST_F(Tiered, ARunGoesOnAcrossTiersFromItsColdEnd) {
  FillHbm();
  ASSERT_EQ(Store(ChainNamed("new", 3)).commit.committed, 3u);
  EXPECT_THAT(TiersOf(Chain(0)), ElementsAre(Hbm(5), Dram(3)));
  const AcquireResult acquired = Acquire(Chain(0));
  EXPECT_THAT(acquired.tiers, ElementsAre(Hbm(5), Dram(3)));
  ExpectReads(acquired.lease, Chain(0));
  const auto explained = engine_->Explain(Tenant{"default"}, FingerprintOf(kSpec), Chain(0), {});
  EXPECT_THAT(explained->tiers, ElementsAre(Hbm(5), Dram(3)));
}

TEST_F(Tiered, ALeasedBlockIsNotMoved) {
  FillHbm();
  const LeaseId lease = Acquire(Chain(0)).lease;
  const uint8_t* const at = engine_->OpenRead(me_, lease, 0, 0)->front().bytes.data();
  Fill(8, 6);
  engine_->EvictToWatermark();
  EXPECT_THAT(TiersOf(Chain(0)), ElementsAre(Hbm(8)));
  EXPECT_EQ(engine_->OpenRead(me_, lease, 0, 0)->front().bytes.data(), at);
  ExpectReads(lease, Chain(0));
}

TEST_F(Tiered, APinnedBlockIsNotMovedThoughItsLeaseIsOver) {
  FillHbm();
  const auto opened = engine_->OpenRead(me_, Acquire(Chain(0), absl::Seconds(1)).lease, 0, 0);
  ASSERT_TRUE(opened.ok());
  clock_.Advance(absl::Seconds(2));
  Fill(8, 6);
  EXPECT_THAT(TiersOf(Chain(0)), ElementsAre(Hbm(8)));
  EXPECT_TRUE(HasContent(Chain(0)[0], kSeed, BytesOf(*engine_, opened->front())));
}

TEST_F(Tiered, WhatFindsNoRoomAboveIsStoredBelow) {
  FillHbm();
  std::vector<LeaseId> leases;
  for (size_t i = 0; i < 8; ++i) leases.push_back(Acquire(Chain(i)).lease);
  Fill(8, 1);
  EXPECT_THAT(TiersOf(Chain(8)), ElementsAre(Dram(8)));
  EXPECT_EQ(*engine_->Release(me_, leases), 8u);
  ExpectStored(0, 9);
}

TEST_F(Tiered, ADemotionWhoseChecksumFailsIsAMissAndNotAWrongByte) {
  FillHbm();
  const std::vector<BlockKey> fresh = ChainNamed("new", 1);
  const auto reserved = [&] {
    control_->corrupts = true;
    auto result = engine_->Reserve(me_, {.spec = spec_, .keys = fresh});
    control_->corrupts = false;
    return result;
  }();
  ASSERT_TRUE(reserved.ok()) << reserved.status();
  EXPECT_EQ(Run(Chain(0)), kLength - 1);
  EXPECT_EQ(CounterValue("quarantined_blocks_total"), 1u);
  EXPECT_EQ(CounterValue("demoted_blocks_total"), 0u);
  const auto explained = engine_->Explain(Tenant{"default"}, FingerprintOf(kSpec), Chain(0), {});
  EXPECT_EQ(explained->reason, MissReason::kQuarantined);
  EXPECT_THAT(explained->event_cause, HasSubstr("another tier"));
  ExpectStored(1, 7);
}

TEST_F(Tiered, ACorruptParentTakesAlongWhatHasMovedBeforeIt) {
  Store(ChainNamed("long", kSlots));
  const auto watch = *engine_->Watch();
  int copies = 0;
  control_->before_copy = [&] { control_->corrupts = ++copies == 3; };
  engine_->EvictToWatermark();
  control_->before_copy = nullptr;
  EXPECT_EQ(Run(ChainNamed("long", kSlots)), kSlots - 3);
  EXPECT_EQ(CounterValue("quarantined_blocks_total"), 1u);
}

TEST_F(Tiered, ADeviceThatRefusesToCopyCostsNothingThatIsStored) {
  FillHbm();
  control_->refuses = true;
  engine_->EvictToWatermark();
  const auto reserved = engine_->Reserve(me_, {.spec = spec_, .keys = Chain(8)});
  ASSERT_TRUE(reserved.ok()) << reserved.status();
  control_->refuses = false;
  EXPECT_EQ(CounterValue("demoted_blocks_total"), 0u);
  EXPECT_GT(CounterValue("demotions_given_up_total"), 0u);
  const auto slot = engine_->OpenWrite(me_, reserved->reservation, 0);
  ASSERT_TRUE(slot.ok());
  EXPECT_EQ(slot->memory, lanes::MemoryKind::kHost);
  ExpectStored(0, 8);
}

TEST_F(Tiered, ABlockTakenIntoUseWhileItIsCopiedStays) {
  FillHbm();
  LeaseId lease;
  control_->before_copy = [&] {
    if (!lease) lease = Acquire(Chain(0)).lease;
  };
  Fill(8, 1);
  control_->before_copy = nullptr;
  EXPECT_THAT(TiersOf(Chain(0)), ElementsAre(Hbm(8)));
  EXPECT_EQ(CounterValue("demotions_given_up_total"), kLength);
  ExpectReads(lease, Chain(0));
}

TEST_F(Tiered, ABlockRemovedWhileItIsCopiedIsGone) {
  FillHbm();
  bool removed = false;
  control_->before_copy = [&] {
    if (std::exchange(removed, true)) return;
    EXPECT_EQ(engine_->Remove(me_, spec_, {{Chain(0)[0]}})->removed, kLength);
    ExpectSound();
  };
  engine_->EvictToWatermark();
  control_->before_copy = nullptr;
  EXPECT_EQ(Run(Chain(0)), 0u);
  ExpectStored(1, 7);
}

TEST_F(Tiered, TheBackgroundBringsHbmToItsLowWatermarkAndDropsNothing) {
  FillHbm();
  engine_->EvictToWatermark();
  const double fill = static_cast<double>(UsedBytes()) / (4 * kMiB);
  EXPECT_LE(fill, limits::kEvictLowWatermark);
  EXPECT_GT(fill, limits::kEvictLowWatermark - 0.02);
  EXPECT_EQ(Evicted(), 0u);
  ExpectStored(0, 8);
}

TEST_F(Tiered, TheBackgroundThreadDemotesByItself) {
  StartTiered(4 * kMiB, 4 * kMiB, /*background_eviction=*/true);
  const auto watch = *engine_->Watch();
  FillHbm();
  size_t moved = 0;
  while (moved < 7) {  // from 64 blocks to 57
    const auto event = watch->Next(absl::Now() + absl::Seconds(60));
    ASSERT_TRUE(event.ok() && event->has_value());
    if ((*event)->kind == Kind::kStored && (*event)->tier == Tier::kDram)
      moved += (*event)->keys.size();
  }
}

TEST_F(Tiered, WatchersHearOfANewTierInPrefixOrderAndTheSnapshotSaysIt) {
  FillHbm();
  const auto watch = *engine_->Watch();
  while ((*watch->Next(absl::InfinitePast()))->kind != Kind::kSnapshotEnd) {
  }
  const auto reserved = engine_->Reserve(me_, {.spec = spec_, .keys = ChainNamed("new", 3)});
  ASSERT_TRUE(reserved.ok());
  const auto event = watch->Next(absl::InfinitePast());
  ASSERT_TRUE(event.ok() && event->has_value());
  EXPECT_EQ((*event)->kind, Kind::kStored);
  EXPECT_EQ((*event)->tier, Tier::kDram);
  EXPECT_EQ((*event)->session_id, "") << "nobody stored anything for a session";
  EXPECT_THAT((*event)->keys, ElementsAre(Chain(0)[5], Chain(0)[6], Chain(0)[7]));
  const auto second = *engine_->Watch();
  size_t dram = 0, hbm = 0;
  while (true) {
    const auto snapshot = *second->Next(absl::InfinitePast());
    if (snapshot->kind == Kind::kSnapshotEnd) break;
    (snapshot->tier == Tier::kDram ? dram : hbm) += snapshot->keys.size();
  }
  EXPECT_EQ(dram, 3u);
  EXPECT_EQ(hbm, kSlots - 3);
}

TEST_F(Tiered, ACommitThatSpansTiersIsToldByTier) {
  FillHbm();
  std::vector<LeaseId> leases;
  for (size_t i = 1; i < 8; ++i) leases.push_back(Acquire(Chain(i)).lease);
  const auto watch = *engine_->Watch();
  while ((*watch->Next(absl::InfinitePast()))->kind != Kind::kSnapshotEnd) {
  }
  const std::vector<BlockKey> keys = ChainNamed("spans", 12);
  Store(me_, kSpec, {.spec = spec_, .keys = keys, .session_id = "s"});
  EXPECT_THAT(TiersOf(keys), ElementsAre(Hbm(8), Dram(4)));
  std::vector<std::pair<Tier, size_t>> told;
  while (true) {
    const auto event = *watch->Next(absl::InfinitePast());
    if (!event.has_value()) break;
    if (event->session_id == "s") told.emplace_back(event->tier, event->keys.size());
  }
  EXPECT_THAT(told, ElementsAre(std::pair(Tier::kHbm, 8u), std::pair(Tier::kDram, 4u)));
}

TEST_F(Tiered, AnotherSpecGetsMemoryOnBothTiersAndNoExtentIsShared) {
  Fill(0, 16);
  const CacheSpec other = SmallSpec(64, 32);
  const SpecHandle handle = Open(me_, other);
  for (int i = 0; i < 12; ++i) {
    const std::vector<BlockKey> keys = ChainNamed(absl::StrCat("other", i), 4);
    EXPECT_EQ(Store(me_, other, {.spec = handle, .keys = keys}).commit.committed, 4u) << i;
    ASSERT_EQ(Run(me_, handle, keys), 4u);
    EXPECT_EQ(engine_->Lookup(me_, handle, keys)->tiers.front().tier, Tier::kHbm);
    engine_->EvictToWatermark();
    ExpectSound();
  }
  Fill(16, 8);
  ExpectStored(23, 1);
}

TEST_F(Tiered, AShardMayHaveHbmAlone) {
  StartTiered(4 * kMiB, 0);
  Fill(0, 9);
  const std::vector<TierUse> tiers = engine_->Describe(Tenant{"default"}).tiers;
  ASSERT_EQ(tiers.size(), 1u);
  EXPECT_EQ(tiers[0].tier, Tier::kHbm);
  EXPECT_EQ(Evicted(), kLength);
  ExpectStored(1, 8);
}

TEST_F(Tiered, ExtentsOfTheTwoTiersHaveIdsOfTheirOwn) {
  FillHbm();
  Fill(8, 8);
  const auto dram = *engine_->OpenRead(me_, Acquire(Chain(0)).lease, 0, 1);
  const auto hbm = *engine_->OpenRead(me_, Acquire(Chain(15)).lease, 0, 1);
  EXPECT_EQ(dram[0].memory, lanes::MemoryKind::kHost);
  EXPECT_EQ(hbm[0].memory, lanes::MemoryKind::kDevice);
  const auto of_dram = engine_->Export(dram[0].bytes.data());
  const auto of_hbm = engine_->Export(hbm[0].bytes.data());
  ASSERT_TRUE(of_dram.has_value() && of_hbm.has_value());
  EXPECT_GE(of_dram->fd, 0);
  EXPECT_EQ(of_hbm->fd, -1);
  EXPECT_NE(of_dram->extent_id, of_hbm->extent_id);
}

}  // namespace
}  // namespace reprise::shard
