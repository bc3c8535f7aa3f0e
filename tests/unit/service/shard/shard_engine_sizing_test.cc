#include <algorithm>
#include <random>

#include "tests/unit/service/shard/engine_fixture.h"

namespace reprise::shard {
namespace {

class Sizing : public EngineTest {
 protected:
  static constexpr size_t kSlots = 64;

  SizingEstimate Estimate() { return engine_->Describe(Tenant{"default"}).sizing; }
  // Of what was asked for, at so many times the memory.
  uint64_t HitTokens(double of_capacity) {
    const SizingEstimate estimate = Estimate();
    const auto point = std::find_if(
        estimate.points.begin(), estimate.points.end(),
        [&](const SizingEstimate::Point& point) { return point.of_capacity == of_capacity; });
    return point == estimate.points.end() ? UINT64_MAX : point->hit_tokens;
  }
  void Ask(const std::vector<BlockKey>& keys) {
    const LeaseId lease = Acquire(keys).lease;
    if (lease) engine_->Release(me_, {{lease}}).IgnoreError();
    Store(keys);
  }
};

TEST_F(Sizing, NothingWasAskedAtFirst) {
  const SizingEstimate estimate = Estimate();
  EXPECT_EQ(estimate.asked_tokens, 0u);
  ASSERT_FALSE(estimate.points.empty());
  for (size_t i = 0; i < estimate.points.size(); ++i) {
    EXPECT_EQ(estimate.points[i].hit_tokens, 0u);
    if (i > 0) EXPECT_GT(estimate.points[i].memory_bytes, estimate.points[i - 1].memory_bytes);
  }
}

// Twice as many blocks as there is room for, asked for in turn: all of it with twice the memory,
// none with what there is.
TEST_F(Sizing, TwiceTheMemoryWouldHaveKeptAllOfIt) {
  constexpr size_t kLength = 8, kPrompts = 2 * kSlots / kLength - 1;
  constexpr uint64_t kRounds = 5;
  const auto prompt = [](size_t i) { return ChainNamed(absl::StrCat("p", i), kLength); };
  for (uint64_t round = 0; round < kRounds; ++round) {
    for (size_t i = 0; i < kPrompts; ++i) Ask(prompt(i));
  }
  const uint64_t tokens = kPrompts * kLength * kSpec.block_tokens;
  EXPECT_EQ(Estimate().asked_tokens, kRounds * tokens);
  EXPECT_EQ(HitTokens(1), 0u);
  EXPECT_EQ(HitTokens(2), (kRounds - 1) * tokens);
  EXPECT_EQ(HitTokens(16), (kRounds - 1) * tokens);
}

// A shard that drops the least recently used itself. The estimate takes a prompt's new blocks to be
// there before its first one is looked for, and so is a little less.
TEST_F(Sizing, WithWhatThereIsItSaysWhatWasFound) {
  StartWith({.dram_bytes = 4 * kMiB, .eviction = Eviction::kLru, .background_eviction = false});
  std::mt19937 random(1);
  for (int i = 0; i < 1000; ++i) Ask(ChainNamed(absl::StrCat("p", random() % 14), 8));
  const uint64_t found = CounterValue("hit_tokens_total");
  EXPECT_EQ(Estimate().asked_tokens, found + CounterValue("miss_tokens_total"));
  EXPECT_LE(HitTokens(1), found);
  EXPECT_GE(HitTokens(1), found * 8 / 10);
  EXPECT_LT(HitTokens(0.5), HitTokens(1) * 8 / 10);
  EXPECT_GT(HitTokens(2), found * 12 / 10);
}

// What was generated and stored is asked for in the next turn.
TEST_F(Sizing, WhatWasStoredWithoutBeingAskedForIsFoundInTheNextTurn) {
  const std::vector<BlockKey> chain = ChainNamed("turns", 8);
  Acquire({chain.begin(), chain.begin() + 2});
  Store(chain);
  Acquire(chain);
  EXPECT_EQ(HitTokens(1), 8 * kSpec.block_tokens);
}

}  // namespace
}  // namespace reprise::shard
