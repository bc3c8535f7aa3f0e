#include "cluster/lanes/lane_rates.h"

#include "gtest/gtest.h"
#include "proto/types/limits.h"

namespace reprise::lanes {
namespace {

constexpr uint64_t kMiB = 1 << 20;

TEST(RateMeterTest, ARateIsBytesOverTimeOfItsOwnLane) {
  RateMeter meter;
  const absl::Time now = absl::UnixEpoch();
  meter.Add(LaneKind::kView, 64 * kMiB, absl::Milliseconds(64), now);
  meter.Add(LaneKind::kNccl, 32 * kMiB, absl::Milliseconds(16), now);
  EXPECT_DOUBLE_EQ(meter.At(now).view, kMiB * 1000.0);
  EXPECT_DOUBLE_EQ(meter.At(now).nccl, kMiB * 2000.0);
  EXPECT_EQ(meter.At(now).stream, 0);
}

TEST(RateMeterTest, NewerBytesCountMore) {
  RateMeter meter;
  absl::Time now = absl::UnixEpoch();
  meter.Add(LaneKind::kStream, 1024 * kMiB, absl::Seconds(1), now);
  const double before = meter.At(now).stream;
  for (int i = 0; i < 10; ++i) {
    now += absl::Seconds(4);
    meter.Add(LaneKind::kStream, 1024 * kMiB, absl::Seconds(4), now);
  }
  EXPECT_NEAR(meter.At(now).stream, before / 4, before / 100);
}

TEST(RateMeterTest, SmallJobsTellNothing) {
  RateMeter meter;
  const absl::Time now = absl::UnixEpoch();
  meter.Add(LaneKind::kStream, limits::kRateJobBytesMin - 1, absl::Seconds(1), now);
  EXPECT_EQ(meter.At(now).stream, 0);
}

TEST(RateMeterTest, ALaneThatWasNotUsedForLongIsAsNeverMeasured) {
  RateMeter meter;
  const absl::Time start = absl::UnixEpoch();
  meter.Add(LaneKind::kNccl, 64 * kMiB, absl::Seconds(64), start);
  const absl::Time later = start + limits::kRateAgeMax + absl::Seconds(1);
  EXPECT_GT(meter.At(start + limits::kRateAgeMax).nccl, 0);
  EXPECT_EQ(meter.At(later).nccl, 0);
  meter.Add(LaneKind::kNccl, 64 * kMiB, absl::Seconds(1), later);
  EXPECT_DOUBLE_EQ(meter.At(later).nccl, 64.0 * kMiB);
}

TEST(LaneRatesTest, CallsSideBySideShowTogetherWhatALaneCarries) {
  EXPECT_EQ(OwnPart(absl::Seconds(8), 1, 1), absl::Seconds(8));
  EXPECT_EQ(OwnPart(absl::Seconds(8), 4, 4), absl::Seconds(2));
  EXPECT_EQ(OwnPart(absl::Seconds(8), 3, 1), absl::Seconds(4));
  RateMeter meter;
  const absl::Time now = absl::FromUnixSeconds(1000);
  for (int call = 0; call < 4; ++call) {
    meter.Add(LaneKind::kTcp, 100 << 20, OwnPart(absl::Seconds(1), 4, 4), now);
  }
  EXPECT_NEAR(meter.At(now).tcp, 400 << 20, 1 << 20);
}

}  // namespace
}  // namespace reprise::lanes
