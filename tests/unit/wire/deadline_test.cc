#include "proto/wire/deadline.h"

#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "proto/types/limits.h"

namespace reprise::wire {
namespace {

// Time between now and `deadline` as gRPC sees it.
absl::Duration Left(absl::Time deadline) {
  const gpr_timespec point = ToGprDeadline(deadline);
  EXPECT_EQ(point.clock_type, GPR_CLOCK_MONOTONIC);
  return absl::DurationFromTimespec(
      {.tv_sec = gpr_time_sub(point, gpr_now(GPR_CLOCK_MONOTONIC)).tv_sec,
       .tv_nsec = gpr_time_sub(point, gpr_now(GPR_CLOCK_MONOTONIC)).tv_nsec});
}

TEST(DeadlineTest, TheTimeLeftIsKept) {
  const absl::Duration left = Left(absl::Now() + absl::Seconds(100));
  EXPECT_LE(left, absl::Seconds(100));
  EXPECT_GT(left, absl::Seconds(40));
}

TEST(DeadlineTest, ThePastIsOverAtOnce) {
  EXPECT_LE(Left(absl::InfinitePast()), absl::ZeroDuration());
  EXPECT_LE(Left(absl::Now() - absl::Hours(1)), absl::ZeroDuration());
}

TEST(DeadlineTest, NoCallIsWithoutADeadline) {
  EXPECT_LE(Left(absl::InfiniteFuture()), limits::kCallDeadlineMax);
  EXPECT_GT(Left(absl::InfiniteFuture()), limits::kCallDeadlineMax - absl::Minutes(1));
}

}  // namespace
}  // namespace reprise::wire
