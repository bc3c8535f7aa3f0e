#include "service/telemetry/tick_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/types/limits.h"
#include "tests/support/manual_clock.h"

namespace reprise::telemetry {
namespace {

TEST(TickWatch, StandingStillForLongIsNotWellAndATickCuresIt) {
  testing::ManualClock clock;
  TickWatch watch(clock);
  EXPECT_EQ(watch.Look(), "");
  clock.Advance(limits::kLivenessSilenceMax - absl::Seconds(1));
  EXPECT_EQ(watch.Look(), "");
  clock.Advance(absl::Seconds(1));
  EXPECT_THAT(watch.Look(), ::testing::HasSubstr("30s"));
  watch.Ticked();
  EXPECT_EQ(watch.Look(), "");
}

TEST(TickWatch, AServerThatStopsIsNotStuck) {
  testing::ManualClock clock;
  TickWatch watch(clock);
  watch.Stop();
  clock.Advance(absl::Hours(1));
  EXPECT_EQ(watch.Look(), "");
}

}  // namespace
}  // namespace reprise::telemetry
