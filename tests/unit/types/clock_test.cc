#include "proto/types/clock.h"

#include <gtest/gtest.h>

#include "proto/types/limits.h"

namespace reprise {
namespace {

TEST(MonotonicClock, NeverRunsBackwards) {
  absl::Time last = MonotonicClock().Now();
  for (int i = 0; i < 10'000; ++i) {
    const absl::Time now = MonotonicClock().Now();
    ASSERT_GE(now, last);
    last = now;
  }
}

TEST(Limits, AgreeWithEachOther) {
  using namespace limits;
  EXPECT_LT(kEvictLowWatermark, kEvictHighWatermark);
  EXPECT_LE(kLeaseTtl, kLeaseTtlMax);
  EXPECT_LE(kLeaseTtlMax, kLeaseAgeMax);
  EXPECT_LE(kReservationTtl, kReservationTtlMax);
  EXPECT_LT(kKeepAliveInterval * kKeepAlivesMissedMax, kLeaseTtl)
      << "a silent client is noticed before its leases end";
  EXPECT_LE(kStreamChunkBytes, kStreamChunkBytesMax);
  EXPECT_GT(kMessageBytesMax, kPromptBlocksMax * 32);
  EXPECT_LE(kBlockBytesMax, kExtentBytesMax);
  EXPECT_LT(kWriteStreamsMax, kReadStreamsMax) << "overload refuses writes first";
}

}  // namespace
}  // namespace reprise
