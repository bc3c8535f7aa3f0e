// Random verbs against a reference model: what is stored stays a forest of prefixes, leased blocks
// stay, nothing appears that was not committed, and the accounting adds up after every step.
// rapidcheck prints the seed; run again with RC_PARAMS="seed=..." to repeat.

#include <rapidcheck.h>

#include <cstdlib>

#include "tests/support/sanitizers.h"
#include "tests/unit/service/shard/engine_model.h"
#include "tests/unit/service/shard/engine_step.h"

namespace reprise::shard {
namespace {

constexpr const char* kCases = reprise::testing::kSanitized ? "max_success=60" : "max_success=250";
// Those on a disk take their time.
constexpr const char* kDiskCases =
    reprise::testing::kSanitized ? "max_success=20" : "max_success=80";

TEST(EngineProperty, RandomVerbsKeepTheForestTheLeasesAndTheAccounting) {
  ::setenv("RC_PARAMS", kCases, /*overwrite=*/0);
  EXPECT_TRUE(rc::check("engine against model", [](const std::vector<Step>& steps) {
    Pair pair({});
    for (const Step& step : steps) pair.Take(step);
  }));
}

TEST(EngineProperty, SoTheyDoWithBlocksOnTheirWayBetweenTwoTiers) {
  ::setenv("RC_PARAMS", kCases, /*overwrite=*/0);
  EXPECT_TRUE(rc::check("engine with two tiers against model", [](const std::vector<Step>& steps) {
    Pair pair({.hbm_bytes = 4 * kMiB});
    for (const Step& step : steps) pair.Take(step);
  }));
}

TEST(EngineProperty, SoTheyDoWithATierOnADiskBelowTheOthers) {
  ::setenv("RC_PARAMS", kDiskCases, /*overwrite=*/0);
  EXPECT_TRUE(
      rc::check("engine with three tiers against model", [](const std::vector<Step>& steps) {
        Pair pair({.hbm_bytes = 4 * kMiB, .dram_bytes = 2 * kMiB, .nvme_bytes = 4 * kMiB});
        for (const Step& step : steps) pair.Take(step);
      }));
}

TEST(EngineProperty, SoTheyDoUnderAQuotaWhichIsNeverExceeded) {
  ::setenv("RC_PARAMS", kCases, /*overwrite=*/0);
  EXPECT_TRUE(rc::check("engine with a quota against model", [](const std::vector<Step>& steps) {
    Pair pair({.hbm_bytes = 4 * kMiB}, /*quota_bytes=*/3 * kMiB);
    for (const Step& step : steps) pair.Take(step);
  }));
}

}  // namespace
}  // namespace reprise::shard
