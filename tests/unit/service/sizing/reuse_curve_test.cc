#include "service/sizing/reuse_curve.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <limits>
#include <list>
#include <random>
#include <tuple>
#include <utility>
#include <vector>

namespace reprise::shard {
namespace {

constexpr uint64_t kUnbounded = std::numeric_limits<uint64_t>::max();
constexpr size_t kAll = std::numeric_limits<size_t>::max();

// Uniform over 64 bits (SplitMix64, Steele, Lea and Flood, OOPSLA 2014).
uint64_t KeyOf(uint64_t id) {
  id = (id + 1) * 0x9e3779b97f4a7c15;
  id = (id ^ (id >> 30)) * 0xbf58476d1ce4e5b9;
  id = (id ^ (id >> 27)) * 0x94d049bb133111eb;
  return id ^ (id >> 31);
}

// One cache that drops the least recently used until the rest fits, as plainly as possible.
class Lru {
 public:
  explicit Lru(uint64_t memory_bytes) : memory_bytes_(memory_bytes) {}

  void Ask(uint64_t id, uint64_t bytes, uint32_t tokens) {
    if (Keep(id, bytes)) hit_tokens_ += tokens;
  }
  // Whether it was there.
  bool Keep(uint64_t id, uint64_t bytes) {
    const auto it = std::find(order_.begin(), order_.end(), id);
    const bool hit = it != order_.end();
    if (hit) order_.erase(it);
    order_.push_front(id);
    while (order_.size() * bytes > memory_bytes_) order_.pop_back();
    return hit;
  }
  uint64_t hit_tokens() const { return hit_tokens_; }

 private:
  const uint64_t memory_bytes_;
  std::list<uint64_t> order_;  // newest first
  uint64_t hit_tokens_ = 0;
};

TEST(ReuseCurve, IsWhatAnLruOfEachSizeWouldServe) {
  EXPECT_TRUE(rc::check("curve against caches", [] {
    const auto steps = *rc::gen::container<std::vector<std::tuple<uint8_t, uint8_t, bool>>>(
        rc::gen::tuple(rc::gen::inRange<uint8_t>(0, 40), rc::gen::inRange<uint8_t>(0, 100),
                       rc::gen::arbitrary<bool>()));
    const uint64_t block_bytes =
        *rc::gen::element(uint64_t{1}, uint64_t{64}, uint64_t{4096}, uint64_t{2} << 20);
    ReuseCurve curve(ReuseCurve::kNoHorizon, kAll);
    std::vector<Lru> caches;
    for (size_t blocks = 0; blocks <= 42; ++blocks) caches.emplace_back(blocks * block_bytes);
    for (const auto& [id, tokens, keep] : steps) {
      const bool kept = keep && tokens % 4 == 0;
      kept ? curve.Keep(KeyOf(id), block_bytes) : curve.Ask(KeyOf(id), block_bytes, tokens);
      for (Lru& cache : caches)
        kept ? void(cache.Keep(id, block_bytes)) : cache.Ask(id, block_bytes, tokens);
    }
    for (size_t blocks = 0; blocks < caches.size(); ++blocks)
      RC_ASSERT(curve.HitTokens(blocks * block_bytes) == caches[blocks].hit_tokens());
    RC_ASSERT(curve.HitTokens(kUnbounded) == caches.back().hit_tokens());
  }));
}

// What is needed to hit: the block and all that were used since, whatever their sizes.
TEST(ReuseCurve, DistancesAreInBytes) {
  EXPECT_TRUE(rc::check("curve against distances", [] {
    const auto ids = *rc::gen::container<std::vector<uint8_t>>(rc::gen::inRange<uint8_t>(0, 30));
    ReuseCurve curve(ReuseCurve::kNoHorizon, kAll);
    std::list<uint64_t> order;
    std::vector<uint64_t> distances_bytes;
    const auto bytes_of = [](uint64_t id) { return 1000 + 37 * id * id; };
    for (const uint64_t id : ids) {
      uint64_t bytes = 0;
      const auto it = std::find_if(order.begin(), order.end(), [&](uint64_t other) {
        bytes += bytes_of(other);
        return other == id;
      });
      if (it != order.end()) {
        distances_bytes.push_back(bytes);
        order.erase(it);
      }
      order.push_front(id);
      curve.Ask(KeyOf(id), bytes_of(id), 1);
    }
    // Exact at the bounds of steps, which are no wider than a 32nd.
    for (uint64_t bytes = 1024; bytes < 1 << 20; bytes += std::max<uint64_t>(bytes / 7, 1)) {
      const auto hits = [&](double memory_bytes) {
        return static_cast<uint64_t>(std::count_if(
            distances_bytes.begin(), distances_bytes.end(),
            [&](uint64_t distance) { return static_cast<double>(distance) <= memory_bytes; }));
      };
      const auto most = static_cast<double>(bytes);
      RC_ASSERT(curve.HitTokens(bytes) >= hits(most * 31 / 32));
      RC_ASSERT(curve.HitTokens(bytes) <= hits(most * 33 / 32));
    }
    RC_ASSERT(curve.HitTokens(kUnbounded) == distances_bytes.size());
  }));
}

// Conversations whose prompts grow, behind a block that all share, asked for as a shard does.
template <typename Ask>
void GeneratedWork(uint32_t seed, Ask ask) {
  std::mt19937 random(seed);
  std::vector<std::vector<uint64_t>> conversations;
  uint64_t next = 1;
  for (int request = 0; request < 20'000; ++request) {
    if (conversations.empty() || random() % 3 == 0) conversations.push_back({0});
    const size_t back = std::geometric_distribution<size_t>(0.002)(random);
    auto& blocks = conversations[conversations.size() - 1 - back % conversations.size()];
    for (size_t more = 4 + random() % 12; more > 0; --more) blocks.push_back(next++);
    for (size_t i = blocks.size(); i-- > 0;) ask(blocks[i]);
  }
}

TEST(ReuseCurve, ASampleSaysTheSameWithinTwoPercent) {
  constexpr uint64_t kBlockBytes = 1 << 20;
  for (const uint32_t seed : {1u, 2u, 3u}) {
    ReuseCurve all(ReuseCurve::kNoHorizon, kAll), sampled(ReuseCurve::kNoHorizon);
    GeneratedWork(seed, [&](uint64_t id) {
      all.Ask(KeyOf(id), kBlockBytes, 16);
      sampled.Ask(KeyOf(id), kBlockBytes, 16);
    });
    ASSERT_EQ(all.asked_tokens(), sampled.asked_tokens());
    ASSERT_GT(all.sampled_blocks(), 20 * sampled.sampled_blocks());
    for (uint64_t blocks = 512; blocks <= 1 << 18; blocks *= 2) {
      const auto exact = static_cast<double>(all.HitTokens(blocks * kBlockBytes));
      EXPECT_NEAR(static_cast<double>(sampled.HitTokens(blocks * kBlockBytes)), exact,
                  0.02 * static_cast<double>(all.asked_tokens()))
          << "seed " << seed << ", " << blocks << " blocks";
    }
  }
}

// Half of the blocks are asked for a second time, 24,000 blocks later. Millions go by, and a
// memory of less than that must not come to look as if it served any of it.
TEST(ReuseCurve, WhatNobodyAsksForAgainDoesNotBlurTheRest) {
  constexpr uint64_t kBlockBytes = 1 << 20, kApart = 12'000, kRounds = 150;
  ReuseCurve curve(200'000 * kBlockBytes, 1024);
  uint64_t next = 0;
  for (uint64_t round = 0; round < kRounds; ++round) {
    const uint64_t first = next;
    for (uint64_t i = 0; i < kApart; ++i) curve.Ask(KeyOf(next++), kBlockBytes, 1);
    for (uint64_t i = 0; i < kApart; ++i) curve.Ask(KeyOf(next++), kBlockBytes, 1);
    for (uint64_t i = 0; i < kApart; ++i) curve.Ask(KeyOf(first + i), kBlockBytes, 1);
  }
  const auto served = [&](uint64_t blocks) {
    return static_cast<double>(curve.HitTokens(blocks * kBlockBytes)) /
           static_cast<double>(curve.asked_tokens());
  };
  EXPECT_LE(served(4'000), 0.01);
  EXPECT_LE(served(16'000), 0.02);
  EXPECT_NEAR(served(48'000), 1.0 / 3, 0.02);
  EXPECT_NEAR(served(200'000), 1.0 / 3, 0.02);
}

TEST(ReuseCurve, FollowsNoMoreThanItMayAndKnowsWhatItFollows) {
  ReuseCurve curve(ReuseCurve::kNoHorizon, 100);
  for (uint64_t id = 0; id < 100'000; ++id) {
    curve.Ask(KeyOf(id), 1, 1);
    ASSERT_LE(curve.sampled_blocks(), 100u);
  }
  EXPECT_EQ(curve.sampled_blocks(), 100u);
  EXPECT_EQ(curve.asked_tokens(), 100'000u);
  // Each was asked for once.
  EXPECT_LE(curve.HitTokens(kUnbounded), 100'000u / 5);  // a hundred follow with a tenth of luck
}

TEST(ReuseCurve, NeverFallsAndIsNeverMoreThanWasAskedFor) {
  EXPECT_TRUE(rc::check("bounds of a curve", [] {
    const auto samples_max = *rc::gen::inRange<size_t>(1, 20);
    const auto steps = *rc::gen::container<std::vector<std::pair<uint8_t, uint16_t>>>(
        rc::gen::arbitrary<std::pair<uint8_t, uint16_t>>());
    ReuseCurve curve(ReuseCurve::kNoHorizon, samples_max);
    uint64_t asked = 0;
    for (const auto& [id, bytes] : steps) {
      curve.Ask(KeyOf(id), bytes, 1 + id);
      asked += 1 + id;
      RC_ASSERT(curve.sampled_blocks() <= samples_max);
    }
    RC_ASSERT(curve.asked_tokens() == asked);
    uint64_t before = curve.HitTokens(0);
    RC_ASSERT(before == 0u);
    for (uint64_t bytes = 1; bytes < 1 << 30; bytes = bytes * 9 / 8 + 1) {
      RC_ASSERT(curve.HitTokens(bytes) >= before);
      before = curve.HitTokens(bytes);
    }
    RC_ASSERT(curve.HitTokens(kUnbounded) >= before);
    RC_ASSERT(curve.HitTokens(kUnbounded) <= asked);
  }));
}

// One block is asked for between any two of the others.
TEST(ReuseCurve, DistancesStayRightForALongTime) {
  constexpr uint64_t kOthers = 39, kTurns = 200;
  ReuseCurve curve(ReuseCurve::kNoHorizon);
  for (uint64_t turn = 0; turn < kTurns; ++turn) {
    for (uint64_t id = 1; id <= kOthers; ++id) {
      curve.Ask(KeyOf(id), 1 << 20, 1);
      curve.Ask(KeyOf(0), 1 << 20, 1);
    }
  }
  const uint64_t of_one = kOthers * kTurns - 1;
  EXPECT_EQ(curve.HitTokens(1 << 20), 0u);
  EXPECT_EQ(curve.HitTokens(2 << 20), of_one);
  EXPECT_EQ(curve.HitTokens(kOthers << 20), of_one);
  EXPECT_EQ(curve.HitTokens((kOthers + 1) << 20), of_one + kOthers * (kTurns - 1));
}

TEST(ReuseCurve, KnowsNothingAtFirst) {
  const ReuseCurve curve(ReuseCurve::kNoHorizon);
  EXPECT_EQ(curve.asked_tokens(), 0u);
  EXPECT_EQ(curve.HitTokens(1 << 30), 0u);
  EXPECT_EQ(curve.HitTokens(kUnbounded), 0u);
}

TEST(ReuseCurve, WhatWasKeptIsThereWhenItIsAskedFor) {
  ReuseCurve curve(ReuseCurve::kNoHorizon);
  curve.Keep(KeyOf(1), 100);
  curve.Ask(KeyOf(1), 100, 16);
  EXPECT_EQ(curve.asked_tokens(), 16u);
  EXPECT_EQ(curve.HitTokens(kUnbounded), 16u);
  EXPECT_EQ(curve.HitTokens(90), 0u);
}

TEST(ReuseCurve, HugeBlocksDoNotOverflow) {
  ReuseCurve curve(ReuseCurve::kNoHorizon, 1);
  for (int turn = 0; turn < 3; ++turn) {
    for (uint64_t id = 0; id < 3; ++id) curve.Ask(KeyOf(id), kUnbounded / 2, 1);
  }
  EXPECT_LE(curve.HitTokens(kUnbounded), curve.asked_tokens());
}

}  // namespace
}  // namespace reprise::shard
