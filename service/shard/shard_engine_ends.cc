// Which blocks are up for eviction: the ends of what is stored that nobody has leased. On the last
// tier an end is a block from which nothing hangs, and that no claim pins; above it, from which
// nothing hangs on the same tier, for what is colder has moved down already. A chain so leaves each
// tier from its end.

#include "absl/hash/hash.h"
#include "service/shard/shard_engine_impl.h"

namespace reprise::shard {

// Stays the same when a key is stored again. Of all of the key: an engine's own may begin with
// zeros.
uint64_t ShardEngineImpl::OrderKeyOf(const SpaceKey& key) {
  return absl::Hash<SpaceKey>()(key);
}

// Whether a group whose least block ranks `a` gives one up before another; nullopt: it has none.
bool ShardEngineImpl::GoesBefore(const std::optional<EvictionRank>& a,
                                 const std::optional<EvictionRank>& b) {
  return a.has_value() && (!b.has_value() || *a < *b);
}

bool ShardEngineImpl::IsNear(BlockId id) const {
  const BlockRecord& block = blocks_[id];
  return block.parent != kNoBlock && !moving_.contains(id) &&
         pool_->LevelOf(blocks_[block.parent].slot) == pool_->LevelOf(block.slot);
}

bool ShardEngineImpl::IsEnd(BlockId id) const {
  const BlockRecord& block = blocks_[id];
  const bool last = pool_->LevelOf(block.slot) == pool_->last();
  const bool may_leave = last ? block.children == 0 && block.claim_pins == 0  // for good
                              : block.near_children == 0;
  return may_leave && block.leases == 0 && !moving_.contains(id);
}

void ShardEngineImpl::JudgeAsEnd(BlockId id) {
  order_.SetEnd(id, IsEnd(id));
}

void ShardEngineImpl::CountNear(BlockId id, bool near) {
  BlockRecord& block = blocks_[id];
  if (block.near == near) return;
  block.near = near;
  blocks_[block.parent].near_children += near ? 1 : -1;
}

// A committed block is where it is now: newly stored, on another tier, or after all not on its way
// to one.
void ShardEngineImpl::Arrived(BlockId id) {
  CountNear(id, IsNear(id));
  if (blocks_[id].parent != kNoBlock) JudgeAsEnd(blocks_[id].parent);
  for (BlockId child = blocks_[id].first_child; child != kNoBlock;
       child = blocks_[child].next_sibling) {
    CountNear(child, IsNear(child));
  }
  JudgeAsEnd(id);
}

// A committed block begins to move to another tier, or is about to be dropped.
void ShardEngineImpl::Departs(BlockId id) {
  CountNear(id, false);
  if (blocks_[id].parent != kNoBlock) JudgeAsEnd(blocks_[id].parent);
  JudgeAsEnd(id);
}

}  // namespace reprise::shard
