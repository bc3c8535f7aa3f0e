#include "service/shard/waiting_blocks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/block_content.h"

namespace reprise::shard {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

constexpr KeySpaceId kSpace(1), kOther(2);

SpaceKey Key(KeySpaceId space, const char* name) {
  return {space, reprise::testing::KeyNamed(name)};
}

TEST(WaitingBlocks, AreTakenWithWhatTheyWaitFor) {
  WaitingBlocks waiting;
  waiting.Add(1, Key(kSpace, "a"));
  waiting.Add(2, Key(kSpace, "a"));
  waiting.Add(3, Key(kSpace, "b"));
  waiting.Add(4, Key(kOther, "a"));
  EXPECT_THAT(waiting.Take(Key(kSpace, "a")), UnorderedElementsAre(1, 2));
  EXPECT_FALSE(waiting.Contains(1));
  EXPECT_THAT(waiting.Take(Key(kSpace, "a")), IsEmpty());
  EXPECT_EQ(waiting.size(), 2u);
  EXPECT_EQ(waiting.ParentOf(4), Key(kOther, "a").key);
  EXPECT_THAT(waiting.Take(Key(kOther, "a")), ElementsAre(4));
  EXPECT_THAT(waiting.Take(Key(kSpace, "b")), ElementsAre(3));
  EXPECT_TRUE(waiting.empty());
}

TEST(WaitingBlocks, TheColdestCameLastInItsKeySpace) {
  WaitingBlocks waiting;
  for (const BlockId block : {1, 2, 3}) waiting.Add(block, Key(kSpace, "a"));
  waiting.Add(4, Key(kOther, "a"));
  EXPECT_EQ(waiting.Coldest(kSpace), 3u);
  waiting.Erase(3);
  EXPECT_EQ(waiting.Coldest(kSpace), 2u);
  waiting.Erase(1);
  EXPECT_EQ(waiting.Coldest(kSpace), 2u);
  waiting.Erase(2);
  EXPECT_EQ(waiting.Coldest(kSpace), std::nullopt);
  EXPECT_EQ(waiting.Coldest(kOther), 4u);
  EXPECT_EQ(waiting.Coldest(KeySpaceId(3)), std::nullopt);
}

TEST(WaitingBlocks, WhatWasErasedIsNotTaken) {
  WaitingBlocks waiting;
  for (const BlockId block : {1, 2, 3}) waiting.Add(block, Key(kSpace, "a"));
  waiting.Erase(2);
  EXPECT_THAT(waiting.Take(Key(kSpace, "a")), UnorderedElementsAre(1, 3));
}

}  // namespace
}  // namespace reprise::shard
