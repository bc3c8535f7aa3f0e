// Extents that change hands: emptied by moving a key space's blocks together, and by dropping some
// where that is allowed. All of it within one tier, in memory that is never shared by two key
// spaces.

#include <algorithm>
#include <utility>

#include "service/shard/shard_engine_impl.h"

namespace reprise::shard {

bool ShardEngineImpl::ReclaimFromAny(const std::vector<KeySpace*>& others, const Reclaim& reclaim) {
  for (KeySpace* other : others) {
    if (ReclaimExtent(*other, reclaim)) return true;
  }
  return false;
}

bool ShardEngineImpl::ReclaimExtent(KeySpace& from, const Reclaim& reclaim) {
  const uint64_t room = pool_->Room(reclaim.level, from.id, from.shape.block_bytes);
  // With an extent's worth of free slots, some extent's blocks fit into the others.
  if (!reclaim.may_evict && room < pool_->Use(reclaim.level, from.id).slots_per_extent)
    return false;
  for (uint32_t extent : MovableExtents(from, reclaim)) {
    if (EmptyExtent(from, extent, reclaim)) {
      counters_.Add(Counter::kReclaimedExtents);
      return true;
    }
  }
  return false;
}

bool ShardEngineImpl::Movable(BlockId id) const {
  const BlockRecord& block = blocks_[id];
  return block.state == BlockState::kCommitted && block.leases == 0 && block.pins == 0;
}

// The key space's extents that others can have and that hold nothing which has to stay where it
// is, the emptiest first.
std::vector<uint32_t> ShardEngineImpl::MovableExtents(const KeySpace& space,
                                                      const Reclaim& reclaim) const {
  std::vector<std::pair<uint32_t, uint32_t>> sized;
  const auto gives_way = [&](BlockId id) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return id == kNoBlock || Movable(id) ||
           (reclaim.may_evict && waiting_.Contains(id) && blocks_[id].pins == 0);
  };
  for (uint32_t extent : pool_->ExtentsOf(reclaim.level, space.id)) {
    if (!pool_->Transferable(extent)) continue;
    const std::vector<BlockId>& slots = slot_blocks_[extent];
    const bool movable = std::all_of(slots.begin(), slots.end(), gives_way);
    if (movable) sized.emplace_back(pool_->used_slots(extent), extent);
  }
  std::sort(sized.begin(), sized.end());
  std::vector<uint32_t> extents;
  for (const auto& [used, extent] : sized) extents.push_back(extent);
  return extents;
}

// A block of the level, or, when all of those have blocks of other tiers beneath them, one of
// these.
bool ShardEngineImpl::EvictForExtent(KeySpace& from, const Reclaim& reclaim) {
  if (EvictOne(from, reclaim.level, DropCause::kReclaim, reclaim.to)) return true;
  for (Level level = pool_->levels(); level > 0; --level) {
    if (level - 1 == reclaim.level) continue;
    if (EvictOne(from, level - 1, DropCause::kReclaim, reclaim.to)) return true;
  }
  return false;
}

bool ShardEngineImpl::EmptyExtent(KeySpace& from, uint32_t extent, const Reclaim& reclaim) {
  const Level level = reclaim.level;
  pool_->SetDraining(extent, true);
  const auto stop = [&] {
    pool_->SetDraining(extent, false);
    return false;
  };
  const uint32_t open = pool_->ExtentsOpenTo(level, reclaim.to);
  const uint64_t block_bytes = from.shape.block_bytes;
  if (reclaim.may_evict) LetGoIn(extent);
  while (pool_->ExtentsOpenTo(level, reclaim.to) == open &&
         pool_->Room(level, from.id, block_bytes) < pool_->used_slots(extent)) {
    if (!reclaim.may_evict || !EvictForExtent(from, reclaim)) return stop();
  }
  if (pool_->ExtentsOpenTo(level, reclaim.to) > open) {  // eviction alone emptied one
    pool_->SetDraining(extent, false);
    return true;
  }
  const std::vector<BlockId> moving = slot_blocks_[extent];
  for (BlockId id : moving) {
    if (id == kNoBlock) continue;
    const std::optional<SlotRef> target = pool_->Allocate(level, from.id, block_bytes);
    if (!target.has_value()) return stop();
    BlockRecord& block = blocks_[id];
    if (!pool_->Copy(block.slot, *target, block_bytes).ok()) {
      pool_->Free(*target);
      return stop();
    }
    SetSlotBlock(block.slot, kNoBlock);
    NoteKept(block.slot);
    pool_->Free(std::exchange(block.slot, *target));
    SetSlotBlock(*target, id);
    NoteKept(*target);
    counters_.Add(Counter::kMovedBlocks);
  }
  return true;
}

}  // namespace reprise::shard
