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

SpaceKey Key(const char* name, KeySpaceId space = kSpace) {
  return {space, reprise::testing::KeyNamed(name)};
}

TEST(WaitingBlocks, AreFoundByTheirKeysAndByWhatTheyHangFrom) {
  WaitingBlocks waiting;
  waiting.Add(1, Key("a"), std::nullopt, false);
  waiting.Add(2, Key("b"), Key("a").key, false);
  waiting.Add(3, Key("c"), Key("a").key, false);
  waiting.Add(4, Key("b", kOther), Key("a").key, false);
  EXPECT_EQ(waiting.Find(Key("b")), 2u);
  EXPECT_EQ(waiting.Find(Key("b", kOther)), 4u);
  EXPECT_EQ(waiting.Find(Key("d")), std::nullopt);
  EXPECT_THAT(waiting.Below(Key("a")), UnorderedElementsAre(2, 3));
  EXPECT_THAT(waiting.Below(Key("a", kOther)), ElementsAre(4));
  EXPECT_THAT(waiting.Below(Key("b")), IsEmpty());
  EXPECT_EQ(waiting.ParentOf(1), std::nullopt);
  EXPECT_EQ(waiting.ParentOf(3), Key("a").key);
  EXPECT_EQ(waiting.size(), 4u);
}

TEST(WaitingBlocks, EachOfSeveralSiblingsMayLeaveFirst) {
  for (const BlockId leaves : {1, 2, 3}) {
    WaitingBlocks waiting;
    waiting.Add(1, Key("a"), Key("p").key, false);
    waiting.Add(2, Key("b"), Key("p").key, false);
    waiting.Add(3, Key("c"), Key("p").key, false);
    waiting.Erase(leaves);
    EXPECT_FALSE(waiting.Contains(leaves));
    std::vector<BlockId> left = waiting.Below(Key("p"));
    EXPECT_EQ(left.size(), 2u);
    for (const BlockId block : left) waiting.Erase(block);
    EXPECT_THAT(waiting.Below(Key("p")), IsEmpty());
    EXPECT_TRUE(waiting.empty());
    for (const char* key : {"a", "b", "c"}) EXPECT_EQ(waiting.Find(Key(key)), std::nullopt);
  }
}

TEST(WaitingBlocks, TheColdestCameLastInItsKeySpace) {
  WaitingBlocks waiting;
  waiting.Add(1, Key("a"), std::nullopt, true);
  waiting.Add(2, Key("b"), Key("a").key, true);
  waiting.Add(3, Key("c"), Key("b").key, true);
  waiting.Add(4, Key("a", kOther), std::nullopt, true);
  EXPECT_LT(waiting.age(1), waiting.age(2));
  EXPECT_LT(waiting.age(2), waiting.age(3));
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

TEST(WaitingBlocks, AreProvedOneByOne) {
  WaitingBlocks waiting;
  waiting.Add(1, Key("a"), std::nullopt, false);
  waiting.Add(2, Key("b"), Key("a").key, false);
  waiting.Prove(2);
  EXPECT_FALSE(waiting.proved(1));
  EXPECT_TRUE(waiting.proved(2));
}

}  // namespace
}  // namespace reprise::shard
