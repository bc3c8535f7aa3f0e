#include "service/router/route_policy.h"

#include <gtest/gtest.h>

#include <vector>

#include "proto/types/limits.h"

namespace reprise::router {
namespace {

const absl::Time kStart = absl::UnixEpoch() + absl::Hours(1);

TEST(LoadMeterTest, AChoiceHalvesWithEveryHalfLife) {
  LoadMeter meter;
  EXPECT_EQ(meter.At(kStart), 0);
  meter.Add(kStart);
  EXPECT_DOUBLE_EQ(meter.At(kStart), 1);
  EXPECT_DOUBLE_EQ(meter.At(kStart + limits::kLoadHalfLife), 0.5);
  meter.Add(kStart + limits::kLoadHalfLife);
  EXPECT_DOUBLE_EQ(meter.At(kStart + limits::kLoadHalfLife), 1.5);
  EXPECT_DOUBLE_EQ(meter.At(kStart), 1.5) << "a late question sees the newest value";
}

TEST(ChooseShardTest, TheLongestRunWinsWhileLoadIsEven) {
  const std::vector<RouteCandidate> candidates = {
      {.run_blocks = 3, .load = 5}, {.run_blocks = 9, .load = 5}, {.run_blocks = 0, .load = 5}};
  EXPECT_EQ(ChooseShard(candidates, 10), 1u);
}

TEST(ChooseShardTest, AmongEqualsThePlacementOrderDecides) {
  const std::vector<RouteCandidate> candidates = {{}, {}, {}};
  EXPECT_EQ(ChooseShard(candidates, 10), 0u);
  EXPECT_EQ(ChooseShard(candidates, 0), 0u);
}

TEST(ChooseShardTest, ASharedFirstBlockDoesNotDrawEverythingToOneShard) {
  const std::vector<RouteCandidate> candidates = {{.run_blocks = 1, .load = 16},
                                                  {.run_blocks = 0, .load = 0}};
  EXPECT_EQ(ChooseShard(candidates, 14), 1u);
}

TEST(ChooseShardTest, ALongRunIsWorthMoreThanEvenLoad) {
  const std::vector<RouteCandidate> candidates = {{.run_blocks = 12, .load = 16},
                                                  {.run_blocks = 0, .load = 0}};
  EXPECT_EQ(ChooseShard(candidates, 14), 0u);
}

// ---- What is elsewhere can be moved

RouteCandidate Candidate(uint32_t run_blocks, double load, MoveCost move = {}) {
  return {.run_blocks = run_blocks, .load = load, .move = move};
}

TEST(ChooseShardTest, WhereMovingIsCheapTheLoadIsSpread) {
  const MoveCost cheap{.per_block = 0.01, .setup = 0.1};
  EXPECT_EQ(ChooseShard(std::vector{Candidate(12, 16), Candidate(0, 0)}, 14), 0u);
  EXPECT_EQ(ChooseShard(std::vector{Candidate(12, 16, cheap), Candidate(0, 0, cheap)}, 14), 1u);
}

TEST(ChooseShardTest, WithEvenLoadNothingIsMoved) {
  const MoveCost cheap{.per_block = 0.01, .setup = 0.1};
  EXPECT_EQ(ChooseShard(std::vector{Candidate(0, 4, cheap), Candidate(12, 4, cheap)}, 14), 1u);
}

TEST(ChooseShardTest, AFewBlocksAreNotWorthTheSetup) {
  // Moving two blocks costs more than computing them, moving two hundred less.
  const MoveCost move{.per_block = 0.05, .setup = 10};
  const auto cost = [&](uint32_t blocks) {
    return ChooseShard(std::vector{Candidate(blocks, 16, move), Candidate(0, 0, move)}, blocks + 2);
  };
  EXPECT_EQ(cost(12), 0u);
  EXPECT_EQ(cost(2000), 1u);
}

TEST(ChooseShardTest, MovingNeverCostsMoreThanComputing) {
  const MoveCost dear{.per_block = 50, .setup = 1000};
  for (uint32_t run = 0; run <= 14; ++run) {
    EXPECT_EQ(ChooseShard(std::vector{Candidate(run, 9, dear), Candidate(0, 3, dear)}, 14),
              ChooseShard(std::vector{Candidate(run, 9), Candidate(0, 3)}, 14))
        << run;
  }
}

TEST(MoveCostTest, IsTheTimeToMoveByTheTimeToCompute) {
  // 2 MB at 1 GB/s is 2 ms; a block is computed in 10 ms.
  const MoveCost move = MoveCostOf(absl::Milliseconds(10), 2'000'000, 1'000'000'000);
  EXPECT_DOUBLE_EQ(move.per_block, 0.2);
  EXPECT_DOUBLE_EQ(move.setup, absl::FDivDuration(limits::kMoveSetup, absl::Milliseconds(10)));
}

TEST(MoveCostTest, WithoutAMeasureItIsThatOfComputing) {
  for (const MoveCost& move : {MoveCostOf(absl::ZeroDuration(), 1 << 20, 1 << 30),
                               MoveCostOf(absl::Seconds(1), 1 << 20, 0)}) {
    EXPECT_EQ(move.per_block, 1);
    EXPECT_EQ(move.setup, 0);
  }
}

}  // namespace
}  // namespace reprise::router
