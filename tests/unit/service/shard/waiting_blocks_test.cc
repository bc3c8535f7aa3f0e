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
  waiting.Add({.block = 1, .key = Key("a"), .age = 0});
  waiting.Add({.block = 2, .key = Key("b"), .parent = Key("a").key, .age = 1});
  waiting.Add({.block = 3, .key = Key("c"), .parent = Key("a").key, .age = 2});
  waiting.Add({.block = 4, .key = Key("b", kOther), .parent = Key("a").key, .age = 3});
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
    waiting.Add({.block = 1, .key = Key("a"), .parent = Key("p").key, .age = 0});
    waiting.Add({.block = 2, .key = Key("b"), .parent = Key("p").key, .age = 1});
    waiting.Add({.block = 3, .key = Key("c"), .parent = Key("p").key, .age = 2});
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
  waiting.Add({.block = 1, .key = Key("a"), .age = 0, .proved = true});
  waiting.Add({.block = 2, .key = Key("b"), .parent = Key("a").key, .age = 1, .proved = true});
  waiting.Add({.block = 3, .key = Key("c"), .parent = Key("b").key, .age = 2, .proved = true});
  waiting.Add({.block = 4, .key = Key("a", kOther), .age = 3, .proved = true});
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
  waiting.Add({.block = 1, .key = Key("a"), .age = 0});
  waiting.Add({.block = 2, .key = Key("b"), .parent = Key("a").key, .age = 1});
  waiting.Prove(2);
  EXPECT_FALSE(waiting.proved(1));
  EXPECT_TRUE(waiting.proved(2));
}

}  // namespace
}  // namespace reprise::shard
