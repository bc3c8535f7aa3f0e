#include "service/shard/tombstones.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/support/block_content.h"

namespace reprise::shard {
namespace {

SpaceKey Key(int i) {
  return {KeySpaceId(1), reprise::testing::KeyNamed(absl::StrCat(i))};
}

TEST(Tombstones, TheOldestAreForgotten) {
  Tombstones stones(10);
  for (int i = 0; i < 15; ++i) stones.Add(Key(i), {.unix_ms = i});
  for (int i = 0; i < 15; ++i) EXPECT_EQ(stones.Find(Key(i)) != nullptr, i >= 5) << i;
  EXPECT_EQ(stones.size(), 10u);
}

TEST(Tombstones, TheLastWordOnAKeyCounts) {
  Tombstones stones(3);
  stones.Add(Key(1), {.cause = DropCause::kWatermark, .unix_ms = 1});
  stones.Add(Key(1), {.cause = DropCause::kRemoved, .unix_ms = 2});
  EXPECT_EQ(stones.Find(Key(1))->cause, DropCause::kRemoved);
  stones.Add(Key(2), {});
  stones.Add(Key(3), {});  // the first word on key 1 leaves, not the last
  ASSERT_NE(stones.Find(Key(1)), nullptr);
  EXPECT_EQ(stones.Find(Key(1))->unix_ms, 2);
  stones.Erase(Key(1));
  EXPECT_EQ(stones.Find(Key(1)), nullptr);
}

TEST(Tombstones, StayBoundedWhenOneKeyComesAndGoes) {
  Tombstones stones(4);
  for (int i = 0; i < 1000; ++i) {
    stones.Add(Key(i % 2), {});
    stones.Erase(Key(i % 2));
  }
  EXPECT_EQ(stones.size(), 0u);
}

TEST(Tombstones, OnlyEvictionsAreEvictions) {
  EXPECT_TRUE(IsEviction(DropCause::kWatermark));
  EXPECT_TRUE(IsEviction(DropCause::kOwnSpace));
  EXPECT_TRUE(IsEviction(DropCause::kReclaim));
  EXPECT_TRUE(IsEviction(DropCause::kQuota));
  EXPECT_FALSE(IsEviction(DropCause::kRemoved));
  EXPECT_FALSE(IsEviction(DropCause::kQuarantined));
  EXPECT_FALSE(IsEviction(DropCause::kBeneathQuarantined));
}

}  // namespace
}  // namespace reprise::shard
