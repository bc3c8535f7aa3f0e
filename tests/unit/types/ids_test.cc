#include "proto/types/ids.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <type_traits>

namespace reprise {
namespace {

TEST(Ids, ZeroIsNone) {
  EXPECT_FALSE(LeaseId());
  EXPECT_FALSE(LeaseId(0));
  EXPECT_TRUE(LeaseId(1));
}

TEST(Ids, NumbersOfDifferentKindsDoNotMix) {
  static_assert(!std::is_convertible_v<uint64_t, LeaseId>);
  static_assert(!std::is_convertible_v<LeaseId, ReservationId>);
  static_assert(!std::is_constructible_v<LeaseId, ReservationId>);
  EXPECT_LT(Epoch(1), Epoch(2));
}

TEST(Ids, EveryTierAndLaneHasANameOfItsOwn) {
  const std::set<std::string> tiers = {TierName(Tier::kHbm), TierName(Tier::kDram),
                                       TierName(Tier::kNvme)};
  EXPECT_EQ(tiers, (std::set<std::string>{"hbm", "dram", "nvme"}));
  const std::set<std::string> lanes = {
      LaneKindName(LaneKind::kInProcess), LaneKindName(LaneKind::kStream),
      LaneKindName(LaneKind::kView), LaneKindName(LaneKind::kNccl)};
  EXPECT_EQ(lanes.size(), 4u);
}

}  // namespace
}  // namespace reprise
