#include "service/shard/block_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace reprise::shard {
namespace {

using ::testing::ElementsAre;

class BlockTableTest : public ::testing::Test {
 protected:
  BlockId Add(BlockId parent) {
    const BlockId id = table_.Add();
    table_[id].state = BlockState::kCommitted;
    table_[id].parent = parent;
    table_.Link(id, roots_);
    return id;
  }
  std::vector<BlockId> Below(BlockId top) {
    std::vector<BlockId> ids;
    for (BlockId id = top; id != kNoBlock; id = table_.NextBelow(top, id, false)) ids.push_back(id);
    return ids;
  }
  BlockTable table_;
  BlockId roots_ = kNoBlock;
};

TEST_F(BlockTableTest, AWalkVisitsParentsBeforeChildrenAndEachBlockOnce) {
  const BlockId root = Add(kNoBlock), other = Add(kNoBlock);
  const BlockId a = Add(root), b = Add(root), a1 = Add(a);
  EXPECT_THAT(Below(root), ElementsAre(root, b, a, a1));
  EXPECT_THAT(Below(a), ElementsAre(a, a1));
  EXPECT_THAT(Below(other), ElementsAre(other));
  EXPECT_EQ(table_.NextBelow(root, a, /*skip_below=*/true), kNoBlock);
  EXPECT_EQ(table_.FirstLeafBelow(root), b);
  EXPECT_EQ(roots_, other);
  EXPECT_EQ(table_[other].next_sibling, root);
}

TEST_F(BlockTableTest, UnlinkTakesABlockFromAnyPlaceAmongItsSiblings) {
  const BlockId root = Add(kNoBlock);
  const BlockId a = Add(root), b = Add(root), c = Add(root);
  table_.Unlink(b, roots_);
  EXPECT_THAT(Below(root), ElementsAre(root, c, a));
  table_.Unlink(c, roots_);
  EXPECT_THAT(Below(root), ElementsAre(root, a));
  table_.Unlink(a, roots_);
  EXPECT_EQ(table_[root].children, 0u);
  table_.Unlink(root, roots_);
  EXPECT_EQ(roots_, kNoBlock);
}

TEST_F(BlockTableTest, AnIdUsedAgainIsOfAnotherGeneration) {
  const BlockId parent = Add(kNoBlock);
  BlockRecord reserved;
  reserved.parent = parent;
  reserved.parent_generation = table_[parent].generation;
  EXPECT_TRUE(table_.ParentStands(reserved));
  table_.Unlink(parent, roots_);
  table_.Drop(parent);
  EXPECT_EQ(table_[parent].state, BlockState::kFree);
  EXPECT_EQ(table_.Add(), parent);
  EXPECT_FALSE(table_.ParentStands(reserved));
  EXPECT_TRUE(table_.ParentStands(BlockRecord()));  // a chain's first block hangs from nothing
}

}  // namespace
}  // namespace reprise::shard
