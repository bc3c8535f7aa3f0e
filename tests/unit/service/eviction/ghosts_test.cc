#include "service/eviction/ghosts.h"

#include <gtest/gtest.h>

namespace reprise::shard {
namespace {

TEST(Ghosts, OneIsTakenOnce) {
  Ghosts ghosts;
  ghosts.Add(7, {.uses = 2, .last_use = 30});
  const std::optional<Ghost> taken = ghosts.Take(7);
  ASSERT_TRUE(taken.has_value());
  EXPECT_EQ(taken->uses, 2u);
  EXPECT_EQ(taken->last_use, 30u);
  EXPECT_FALSE(ghosts.Take(7).has_value());
  EXPECT_FALSE(ghosts.TakeOldest().has_value());
}

TEST(Ghosts, TheOneRememberedLongestGoesFirst) {
  Ghosts ghosts;
  for (uint64_t key : {5u, 6u, 7u, 8u}) ghosts.Add(key, {.uses = 1, .last_use = key});
  ghosts.Take(6);
  ghosts.Add(5, {.uses = 2, .last_use = 50});  // the newest now
  EXPECT_EQ(ghosts.size(), 3u);
  EXPECT_EQ(ghosts.TakeOldest()->last_use, 7u);
  EXPECT_EQ(ghosts.TakeOldest()->last_use, 8u);
  EXPECT_EQ(ghosts.TakeOldest()->last_use, 50u);
  EXPECT_EQ(ghosts.size(), 0u);
}

// Neither one that is never taken nor keys that come again and again make it remember more.
TEST(Ghosts, WhatIsTakenLeavesNothingBehind) {
  Ghosts ghosts;
  ghosts.Add(1, {.uses = 1, .last_use = 1});
  for (uint64_t i = 0; i < 100'000; ++i) {
    ghosts.Add(2 + i % 100, {.uses = 1, .last_use = i});
    if (i % 3 != 0) ghosts.Take(2 + i % 100);
    ASSERT_LE(ghosts.turns(), 2 * (ghosts.size() + 1) + 64);
  }
  EXPECT_EQ(ghosts.TakeOldest()->last_use, 1u);
}

}  // namespace
}  // namespace reprise::shard
