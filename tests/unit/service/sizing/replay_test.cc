#include "service/sizing/replay.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <map>
#include <random>
#include <vector>

namespace reprise::sizing {
namespace {

using shard::Eviction;

constexpr uint32_t kTokens = 16;

// One request every ten seconds; ids as in a file.
Trace TraceOf(const std::vector<std::vector<uint64_t>>& prompts) {
  Trace trace{.name = "by hand", .block_tokens = kTokens};
  for (const std::vector<uint64_t>& ids : prompts) {
    Request request{.at = absl::Seconds(10) * trace.requests.size(),
                    .prompt_tokens = ids.size() * kTokens};
    for (const uint64_t id : ids) request.blocks.push_back(KeyOfId(id));
    trace.requests.push_back(std::move(request));
  }
  return trace;
}

uint64_t Hits(const Trace& trace, size_t blocks, Eviction kind = Eviction::kLearned) {
  return ShardHitTokens(trace, blocks, kind) / kTokens;
}

// Two conversations, in turns.
const std::vector<std::vector<uint64_t>> kTwo = {
    {1, 2},     // stores 1 2
    {1, 5, 6},  // finds 1, stores 5 6
    {1, 2, 3},  // finds 1 2, stores 3
    {1, 5, 6},  // finds 1 5 6
};

TEST(Replay, TotalsAreThoseOfACacheWithoutABound) {
  const TraceTotals totals = TotalsOf(TraceOf(kTwo));
  EXPECT_EQ(totals.prompt_tokens, 11 * kTokens);
  EXPECT_EQ(totals.blocks, 11u);
  EXPECT_EQ(totals.distinct_blocks, 5u);
  EXPECT_EQ(totals.hit_tokens, (1 + 2 + 3) * kTokens);
}

TEST(Replay, AShardServesWhatTheHandComputes) {
  const Trace trace = TraceOf(kTwo);
  EXPECT_EQ(Hits(trace, 0), 0u);
  // Never more than the first block, which everything hangs from and all use.
  EXPECT_EQ(Hits(trace, 1), 3u);
  for (const Eviction kind : {Eviction::kLearned, Eviction::kLru}) {
    // Of three: 2 goes for 6, then 6 for 2 and 5 for 3, then 3 for 5 and 2 for 6.
    EXPECT_EQ(Hits(trace, 3, kind), 1u + 1 + 1);
    // Of four: 1 2 5 6, then 6 goes for 3, then 3 for 6.
    EXPECT_EQ(Hits(trace, 4, kind), 1u + 2 + 2);
    EXPECT_EQ(Hits(trace, 5, kind), 1u + 2 + 3);
  }
}

TEST(Replay, APromptThatDoesNotFitKeepsItsBeginning) {
  const Trace trace = TraceOf({{1, 2, 3, 4, 5}, {1, 2, 3, 4, 5}});
  for (size_t blocks = 0; blocks <= 6; ++blocks)
    EXPECT_EQ(Hits(trace, blocks), std::min<size_t>(blocks, 5)) << blocks;
}

TEST(Replay, TheCurveServesWhatTheHandComputes) {
  const shard::ReuseCurve curve = LruCurve(TraceOf(kTwo), 1 << 20);
  EXPECT_EQ(curve.asked_tokens(), 11 * kTokens);
  // 1 needs three blocks each time: itself and the two of its prompt that are used before it.
  // When they come back, 2, 5 and 6 need all five.
  EXPECT_EQ(curve.HitTokens(2 << 20), 0u);
  EXPECT_EQ(curve.HitTokens(3 << 20), 3 * kTokens);
  EXPECT_EQ(curve.HitTokens(4 << 20), 3 * kTokens);
  EXPECT_EQ(curve.HitTokens(5 << 20), 6 * kTokens);
  EXPECT_EQ(curve.HitTokens(~uint64_t{0}), 6 * kTokens);
}

constexpr size_t kPromptBlocksMax = 8;

// A forest of random prompts: ids of blocks by what they hang from and a choice.
Trace RandomTrace(uint32_t seed) {
  std::mt19937 random(seed);
  std::map<std::pair<uint64_t, uint32_t>, uint64_t> ids;
  std::vector<std::vector<uint64_t>> prompts;
  for (int request = 0; request < 200; ++request) {
    std::vector<uint64_t> prompt;
    uint64_t parent = 0;
    for (uint32_t depth = random() % (kPromptBlocksMax + 1); depth > 0; --depth) {
      const uint64_t fresh = ids.size() + 1;
      parent = ids.try_emplace({parent, random() % 2}, fresh).first->second;
      prompt.push_back(parent);
    }
    prompts.push_back(std::move(prompt));
  }
  return TraceOf(prompts);
}

TEST(Replay, TheCurveIsThatOfShardsThatDropTheLeastRecentlyUsedWithinAPrompt) {
  EXPECT_TRUE(rc::check("curve against shards", [](uint32_t seed) {
    const Trace trace = RandomTrace(seed);
    const shard::ReuseCurve curve = LruCurve(trace, 4096);
    for (size_t blocks = 2 * kPromptBlocksMax; blocks <= 64; ++blocks) {
      const uint64_t hit_tokens = curve.HitTokens(blocks * 4096);
      RC_ASSERT(hit_tokens <= ShardHitTokens(trace, blocks, Eviction::kLru));
      RC_ASSERT(hit_tokens >= ShardHitTokens(trace, blocks - kPromptBlocksMax, Eviction::kLru));
    }
  }));
}

TEST(Replay, NoSizeServesMoreThanACacheWithoutABoundAndAllServeThatInTheEnd) {
  EXPECT_TRUE(rc::check("sizes against no bound", [](uint32_t seed) {
    const Trace trace = RandomTrace(seed);
    const TraceTotals totals = TotalsOf(trace);
    const shard::ReuseCurve curve = LruCurve(trace, 4096);
    for (size_t blocks = 0; blocks <= totals.distinct_blocks; blocks += 7) {
      for (const Eviction kind : {Eviction::kLearned, Eviction::kLru})
        RC_ASSERT(ShardHitTokens(trace, blocks, kind) <= totals.hit_tokens);
      RC_ASSERT(curve.HitTokens(blocks * 4096) <= totals.hit_tokens);
    }
    for (const Eviction kind : {Eviction::kLearned, Eviction::kLru})
      RC_ASSERT(ShardHitTokens(trace, totals.distinct_blocks, kind) == totals.hit_tokens);
    RC_ASSERT(curve.HitTokens(~uint64_t{0}) == totals.hit_tokens);
    RC_ASSERT(curve.HitTokens(totals.distinct_blocks * 4096 * 33 / 32) == totals.hit_tokens);
  }));
}

}  // namespace
}  // namespace reprise::sizing
