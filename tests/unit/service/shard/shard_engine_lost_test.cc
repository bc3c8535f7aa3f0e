// A shard whose GPU is lost goes on with the memory that it has left.
#include "tests/unit/service/shard/engine_fixture.h"

namespace reprise::shard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Kind = BlockEvent::Kind;

// Two extents of 32 slots on each tier.
class LostTier : public EngineTest {
 protected:
  static constexpr size_t kLength = 8;
  static constexpr size_t kChains = 8;  // fill a tier

  void SetUp() override { StartTiered(4 * kMiB, 4 * kMiB); }

  static std::vector<BlockKey> Chain(size_t i) { return ChainNamed(absl::StrCat("c", i), kLength); }
  void Fill(size_t first, size_t chains) {
    for (size_t i = first; i < first + chains; ++i) {
      ASSERT_EQ(Store(Chain(i)).commit.committed, kLength) << i;
    }
  }
  // The GPU is lost, and somebody who wanted a block of `lease` was the first to see it.
  void Lose(LeaseId lease) {
    const auto opened = engine_->OpenRead(me_, lease, 0, 1);
    ASSERT_TRUE(opened.ok()) << opened.status();
    control_->lost = true;
    std::vector<uint8_t> bytes(kBlockBytes);
    EXPECT_EQ(CodeAndReason(engine_->CopyToHost(opened->front().bytes, bytes)),
              "INTERNAL SHARD_GPU_LOST");
  }
  std::vector<TierUse> Tiers() { return engine_->Describe(Tenant{"default"}).tiers; }
};

TEST_F(LostTier, WhatLayThereIsAMissAndWatchersHearOfIt) {
  Fill(0, 2 * kChains);  // the first half is in dram
  const LeaseId lease = Acquire(Chain(kChains)).lease;
  const auto watch = *engine_->Watch();
  while ((*watch->Next(absl::InfinitePast()))->kind != Kind::kSnapshotEnd) {
  }
  Lose(lease);
  engine_->Tick();
  size_t removed = 0;
  while (const auto event = *watch->Next(absl::InfinitePast())) {
    ASSERT_EQ(event->kind, Kind::kRemoved);
    removed += event->keys.size();
  }
  EXPECT_EQ(removed, kChains * kLength);
  EXPECT_EQ(CounterValue("lost_blocks_total"), kChains * kLength);
  for (size_t i = 0; i < kChains; ++i) {
    const AcquireResult acquired = Acquire(Chain(i));
    ASSERT_EQ(acquired.run_blocks, kLength);
    ExpectReads(acquired.lease, Chain(i));
    EXPECT_EQ(Run(Chain(kChains + i)), 0u) << i;
  }
  const auto explained =
      engine_->Explain(Tenant{"default"}, FingerprintOf(kSpec), Chain(kChains), {});
  EXPECT_EQ(explained->reason, MissReason::kEvicted);
  EXPECT_THAT(explained->sentence, HasSubstr("loss of the GPU"));
}

TEST_F(LostTier, TheLeaseOfALostBlockReadsNothing) {
  Fill(0, 1);
  const LeaseId lease = Acquire(Chain(0)).lease;
  Lose(lease);
  EXPECT_EQ(CodeAndReason(engine_->OpenRead(me_, lease, 0, 0).status()), "INTERNAL SHARD_GPU_LOST");
  ExpectSound();
  EXPECT_EQ(*engine_->Release(me_, {{lease}}), 1u);
  EXPECT_EQ(UsedBytes(), 0u);
}

TEST_F(LostTier, ARunIsLostFromItsFirstLostBlockOn) {
  Fill(0, kChains);
  ASSERT_EQ(Store(ChainNamed("new", 3)).commit.committed, 3u);
  ASSERT_THAT(engine_->Lookup(me_, spec_, Chain(0))->tiers,
              ElementsAre(TierRun{Tier::kHbm, 5}, TierRun{Tier::kDram, 3}));
  Lose(Acquire(Chain(1)).lease);
  engine_->Tick();
  EXPECT_EQ(Run(Chain(0)), 0u);
  EXPECT_EQ(engine_->Describe(Tenant{"default"}).blocks, 0u);
  EXPECT_EQ(Tiers()[1].used_bytes, 0u);
}

TEST_F(LostTier, NewBlocksGoToTheOtherTierAndDescribeSaysWhy) {
  Fill(0, 1);
  EXPECT_FALSE(Tiers()[0].lost);
  Lose(Acquire(Chain(0)).lease);
  Fill(1, kChains);
  EXPECT_TRUE(Tiers()[0].lost);
  EXPECT_FALSE(Tiers()[1].lost);
  for (size_t i = 1; i < 1 + kChains; ++i) {
    EXPECT_THAT(engine_->Lookup(me_, spec_, Chain(i))->tiers, ElementsAre(TierRun{Tier::kDram, 8}));
  }
  engine_->EvictToWatermark();
  Fill(20, kChains);
}

TEST_F(LostTier, WithoutAnotherTierAReservationIsRefusedWithTheReason) {
  StartTiered(4 * kMiB, 0);
  Fill(0, 1);
  Lose(Acquire(Chain(0)).lease);
  EXPECT_EQ(CodeAndReason(engine_->Reserve(me_, {.spec = spec_, .keys = Chain(1)}).status()),
            "UNAVAILABLE SHARD_GPU_LOST");
}

TEST_F(LostTier, AWriteUnderWayIsOverAndMayBeginAnew) {
  const ReservationId reservation =
      engine_->Reserve(me_, {.spec = spec_, .keys = Chain(0)})->reservation;
  const auto slot = engine_->OpenWrite(me_, reservation, 0);
  ASSERT_TRUE(slot.ok());
  control_->lost = true;
  const std::vector<uint8_t> bytes(kBlockBytes);
  EXPECT_EQ(CodeAndReason(engine_->CopyToDevice(bytes, slot->bytes)), "INTERNAL SHARD_GPU_LOST");
  EXPECT_EQ(CodeAndReason(engine_->OpenWrite(me_, reservation, 1).status()),
            "NOT_FOUND RESERVATION_UNKNOWN");
  Fill(0, 1);
}

TEST_F(LostTier, ACommitWhoseChecksumsCannotBeMadeCommitsNothing) {
  const std::vector<BlockKey> keys = ChainNamed("one", 1);
  const ReservationId reservation =
      engine_->Reserve(me_, {.spec = spec_, .keys = keys})->reservation;
  const Checksum128 checksum = Write(me_, reservation, 0, keys[0], kSpec);
  control_->lost = true;
  EXPECT_EQ(
      CodeAndReason(
          engine_->Commit(me_, {.reservation = reservation, .checksums = {{checksum}}}).status()),
      "INTERNAL SHARD_GPU_LOST");
  EXPECT_EQ(Run(keys), 0u);
  engine_->Tick();
  EXPECT_EQ(engine_->Describe(Tenant{"default"}).reservations, 0u);
}

TEST_F(LostTier, ABlockOnItsWayDownIsLostToo) {
  Fill(0, kChains);
  control_->before_copy = [&] { control_->lost = true; };
  engine_->EvictToWatermark();
  engine_->Tick();
  EXPECT_EQ(engine_->Describe(Tenant{"default"}).blocks, 0u);
  for (const TierUse& tier : Tiers()) EXPECT_EQ(tier.used_bytes, 0u);
}

}  // namespace
}  // namespace reprise::shard
