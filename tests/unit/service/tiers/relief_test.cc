#include "service/tiers/relief.h"

#include <gtest/gtest.h>

#include <vector>

#include "proto/types/limits.h"

namespace reprise::shard {
namespace {

constexpr double kOver = limits::kEvictHighWatermark + .01;
constexpr double kBetween = (limits::kEvictHighWatermark + limits::kEvictLowWatermark) / 2;

TEST(Relief, NothingIsDoneBelowTheHighWatermark) {
  std::vector<TierLoad> loads = {{.pressure = kBetween}, {.pressure = .1}};
  EXPECT_EQ(NextRelief(loads).kind, Relief::Kind::kNone);
}

TEST(Relief, AFullTierGivesToTheNextAndTheLastOneDrops) {
  std::vector<TierLoad> loads = {{.pressure = kOver}, {.pressure = .1}};
  Relief relief = NextRelief(loads);
  EXPECT_EQ(relief.kind, Relief::Kind::kDemote);
  EXPECT_EQ(relief.level, 0u);
  loads[1].pressure = kOver;
  relief = NextRelief(loads);
  EXPECT_EQ(relief.kind, Relief::Kind::kEvict) << "what is demoted needs room first";
  EXPECT_EQ(relief.level, 1u);
}

TEST(Relief, OnceBegunItGoesOnToTheLowWatermark) {
  std::vector<TierLoad> loads = {{.pressure = kOver}, {.pressure = .1}};
  NextRelief(loads);
  loads[0].pressure = kBetween;
  EXPECT_EQ(NextRelief(loads).kind, Relief::Kind::kDemote);
  loads[0].pressure = limits::kEvictLowWatermark;
  EXPECT_EQ(NextRelief(loads).kind, Relief::Kind::kNone);
  loads[0].pressure = kBetween;
  EXPECT_EQ(NextRelief(loads).kind, Relief::Kind::kNone);
}

TEST(Relief, ATierThatIsStuckIsLeftAloneAndDoesNotHoldUpTheOthers) {
  std::vector<TierLoad> loads = {{.pressure = 1}, {.pressure = 1, .stuck = true}};
  EXPECT_EQ(NextRelief(loads).kind, Relief::Kind::kDemote);
  loads[0].stuck = true;
  EXPECT_EQ(NextRelief(loads).kind, Relief::Kind::kNone);
}

TEST(Relief, AnOnlyTierDrops) {
  std::vector<TierLoad> loads = {{.pressure = kOver}};
  EXPECT_EQ(NextRelief(loads).kind, Relief::Kind::kEvict);
}

}  // namespace
}  // namespace reprise::shard
