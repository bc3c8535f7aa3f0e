#include "service/shard/block_table.h"

#include "proto/types/status_macros.h"

namespace reprise::shard {

BlockId BlockTable::Add() {
  if (unused_.empty()) {
    records_.emplace_back();
    return static_cast<BlockId>(records_.size() - 1);
  }
  const BlockId id = unused_.back();
  unused_.pop_back();
  return id;
}

void BlockTable::Drop(BlockId id) {
  const uint32_t generation = records_[id].generation;
  records_[id] = BlockRecord();
  records_[id].generation = generation + 1;
  unused_.push_back(id);
}

void BlockTable::Link(BlockId id, BlockId& roots) {
  BlockRecord& block = records_[id];
  BlockId& first = block.parent == kNoBlock ? roots : records_[block.parent].first_child;
  block.previous_sibling = kNoBlock;
  block.next_sibling = first;
  if (first != kNoBlock) records_[first].previous_sibling = id;
  first = id;
  if (block.parent != kNoBlock) ++records_[block.parent].children;
}

void BlockTable::Unlink(BlockId id, BlockId& roots) {
  BlockRecord& block = records_[id];
  REPRISE_CHECK(block.children == 0);
  if (block.previous_sibling != kNoBlock) {
    records_[block.previous_sibling].next_sibling = block.next_sibling;
  } else {
    (block.parent == kNoBlock ? roots : records_[block.parent].first_child) = block.next_sibling;
  }
  if (block.next_sibling != kNoBlock) {
    records_[block.next_sibling].previous_sibling = block.previous_sibling;
  }
  if (block.parent != kNoBlock) --records_[block.parent].children;
  block.parent = block.previous_sibling = block.next_sibling = kNoBlock;
}

BlockId BlockTable::NextBelow(BlockId top, BlockId id, bool skip_below) const {
  if (!skip_below && records_[id].first_child != kNoBlock) return records_[id].first_child;
  while (id != top) {
    if (records_[id].next_sibling != kNoBlock) return records_[id].next_sibling;
    id = records_[id].parent;
  }
  return kNoBlock;
}

BlockId BlockTable::FirstLeafBelow(BlockId id) const {
  while (records_[id].first_child != kNoBlock) id = records_[id].first_child;
  return id;
}

}  // namespace reprise::shard
