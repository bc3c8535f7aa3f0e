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

}  // namespace
}  // namespace reprise::router
