#include "service/journal/kept_fold.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <utility>

#include "tests/unit/service/journal/kept_samples.h"

namespace reprise::shard {
namespace {

KeptContents Folded(std::vector<KeptBatch> batches) {
  KeptFold fold;
  for (KeptBatch& batch : batches) fold.Add({.batch = std::move(batch)});
  return fold.Take();
}

TEST(KeptFoldTest, OfWhatIsSaidOfASlotTheLastCounts) {
  ExpectSame(Folded(SampleBatches()), ComeTo(SampleBatches()));
}

TEST(KeptFoldTest, InOneBatchGoneIsSaidLast) {
  KeptBatch batch;
  batch.spaces = {SampleSpace(1)};
  batch.blocks = {SampleBlock(1, {0, 0}, 1), SampleBlock(1, {0, 0}, 2), SampleBlock(1, {0, 1}, 3)};
  batch.gone = {{0, 1}};
  const KeptContents contents = Folded({batch});
  ASSERT_EQ(contents.blocks.size(), 1);
  EXPECT_TRUE(contents.blocks[0] == batch.blocks[1]);
}

TEST(KeptFoldTest, ItEndsOnlyWithAnEnd) {
  KeptBatch end, more;
  end.closed = true;
  more.gone = {{0, 0}};
  EXPECT_TRUE(Folded({more, end}).closed);
  EXPECT_FALSE(Folded({end, more}).closed);
  EXPECT_FALSE(Folded({}).closed);
}

TEST(KeptFoldTest, WhatNamesNoSpaceIsSkippedAndItsSlotGone) {
  KeptBatch first, second;
  first.spaces = {SampleSpace(1)};
  first.blocks = {SampleBlock(1, {0, 0}, 1), SampleBlock(1, {0, 1}, 2)};
  second.blocks = {SampleBlock(2, {0, 0}, 3)};
  second.claims = {SampleClaim(2, 1), SampleClaim(1, 2)};
  const KeptContents contents = Folded({first, second});
  ASSERT_EQ(contents.blocks.size(), 1);
  EXPECT_EQ(contents.blocks[0].slot, (SlotRef{0, 1}));
  EXPECT_EQ(contents.claims.size(), 1);
  EXPECT_EQ(contents.skipped, 2);
}

TEST(KeptFoldTest, ASpaceThatIsToldAgainIsTheSame) {
  KeptBatch batch;
  batch.spaces = {SampleSpace(1), SampleSpace(1)};
  batch.blocks = {SampleBlock(1, {0, 0}, 1)};
  const KeptContents contents = Folded({batch, batch});
  EXPECT_EQ(contents.spaces.size(), 1);
  EXPECT_EQ(contents.blocks.size(), 1);
  EXPECT_EQ(contents.skipped, 0);
}

// One tenant's blocks must not become another's.
TEST(KeptFoldTest, ANumberWithTwoSpacesIsNobodys) {
  KeptBatch first, second;
  first.spaces = {SampleSpace(1), SampleSpace(2)};
  first.blocks = {SampleBlock(1, {0, 0}, 1), SampleBlock(2, {0, 1}, 2)};
  first.claims = {SampleClaim(1, 1)};
  second.spaces = {SampleSpace(1)};
  second.spaces[0].tenant.name = "another";
  second.blocks = {SampleBlock(1, {0, 2}, 3)};
  const KeptContents contents = Folded({first, second});
  ASSERT_EQ(contents.spaces.size(), 1);
  EXPECT_EQ(contents.spaces[0].number, 2);
  ASSERT_EQ(contents.blocks.size(), 1);
  EXPECT_EQ(contents.blocks[0].space, 2);
  EXPECT_TRUE(contents.claims.empty());
  EXPECT_EQ(contents.skipped, 5);  // both spaces, two blocks, a claim
}

TEST(KeptFoldTest, SkippedRecordsAddUp) {
  KeptFold fold;
  fold.Add({.batch = {}, .skipped = 2});
  fold.Add({.batch = {}, .skipped = 3});
  EXPECT_EQ(fold.Take().skipped, 5);
}

// Slots that are written over and over, so that superseded ones are dropped in between.
TEST(KeptFoldTest, AHundredThousandBlocksInFewSlots) {
  constexpr uint32_t kSlots = 7'000;
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  KeptFold fold;
  std::map<std::pair<uint32_t, uint32_t>, std::pair<size_t, KeptBlock>> expected;
  size_t order = 0;
  for (int number = 0; number < 100; ++number) {
    KeptBatch batch;
    if (number == 0) batch.spaces = {SampleSpace(1)};
    for (int i = 0; i < 1000; ++i) {
      const SlotRef slot{static_cast<uint32_t>(random() % 7),
                         static_cast<uint32_t>(random() % (kSlots / 7))};
      batch.blocks.push_back(SampleBlock(1, slot, order));
      expected[{slot.extent, slot.index}] = {order++, batch.blocks.back()};
    }
    for (int i = 0; i < (number % 10 == 9 ? 5'000 : 100); ++i) {
      const SlotRef slot{static_cast<uint32_t>(random() % 7),
                         static_cast<uint32_t>(random() % (kSlots / 7))};
      batch.gone.push_back(slot);
      expected.erase({slot.extent, slot.index});
    }
    fold.Add({.batch = std::move(batch)});
  }
  std::map<size_t, KeptBlock> in_order;
  for (auto& [slot, written] : expected) in_order[written.first] = written.second;
  const KeptContents contents = fold.Take();
  ASSERT_EQ(contents.blocks.size(), in_order.size());
  size_t at = 0;
  for (const auto& [written, block] : in_order) {
    ASSERT_TRUE(contents.blocks[at++] == block) << "block " << written;
  }
}

}  // namespace
}  // namespace reprise::shard
