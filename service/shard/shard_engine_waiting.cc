// Blocks of a kept disk whose parents are not stored: a crash leaves the ends of chains whose first
// blocks were in memory. They are as good as ever, and are stored again with the block that they
// hang from, whoever brings that. Until then they are the first to go for room.

#include "proto/types/limits.h"
#include "service/shard/shard_engine_impl.h"

namespace reprise::shard {

// `stored` just was: so is now what waited for it, and for that in turn.
void ShardEngineImpl::Adopt(KeySpace& space, BlockId stored) {
  if (waiting_.empty()) return;
  std::vector<BlockId> parents = {stored};
  while (!parents.empty()) {
    const BlockId parent = parents.back();
    parents.pop_back();
    for (const BlockId id : waiting_.Take(SpaceKey{space.id, blocks_[parent].key})) {
      BlockRecord& block = blocks_[id];
      const SpaceKey key{space.id, block.key};
      // Who is writing it, or wrote it meanwhile, has it.
      if (block.depth != blocks_[parent].depth + 1 || reserved_.contains(key) ||
          index_.Find(key).has_value()) {
        FreeWaiting(id);
        continue;
      }
      block.parent = parent;
      --space.held_back;
      Enter(space, id, /*copy=*/true);
      counters_.Add(Counter::kAdoptedBlocks);
      adopted_.push_back(id);
      parents.push_back(id);
    }
  }
}

// Watchers hear of what was adopted, chain by chain: a child comes after its parent, and a branch
// begins an event.
void ShardEngineImpl::PublishAdopted(const KeySpace& space) {
  const std::vector<BlockId> adopted = std::exchange(adopted_, {});
  if (watchers_.empty()) return;
  const std::span<const BlockId> all(adopted);
  for (size_t begin = 0, end = 0; begin < all.size(); begin = end) {
    const auto goes_on = [&](size_t at) ABSL_NO_THREAD_SAFETY_ANALYSIS {
      const BlockRecord& block = blocks_[all[at]];
      return block.parent == all[at - 1] &&
             block.chain->session_id == blocks_[all[at - 1]].chain->session_id;
    };
    for (end = begin + 1; end < all.size() && goes_on(end);) ++end;
    PublishStored(space, all.subspan(begin, end - begin));
  }
}

// The coldest of a key space. False when none waits.
bool ShardEngineImpl::LetGoWaiting(KeySpaceId space) {
  const std::optional<BlockId> coldest = waiting_.Coldest(space);
  if (!coldest.has_value()) return false;
  waiting_.Erase(*coldest);
  FreeWaiting(*coldest);
  return true;
}

// A block of any key space, or of a tenant's.
bool ShardEngineImpl::LetGoAnyWaiting(const Tenant* only) {
  if (waiting_.empty()) return false;
  for (const auto& [id, space] : spaces_) {
    if (only != nullptr && space->tenant != *only) continue;
    if (LetGoWaiting(id)) return true;
  }
  return false;
}

// It waits no more, for whatever reason.
void ShardEngineImpl::FreeWaiting(BlockId id) {
  counters_.Add(Counter::kUnadoptedBlocks);
  blocks_[id].state = BlockState::kHidden;
  NoteKept(blocks_[id].slot);
  FreeIfIdle(id);
}

// Room on the kept disk at the cost of what waits there: the key space's own first, since a slot of
// another's is of use only when its whole extent is free.
std::optional<SlotRef> ShardEngineImpl::AllocateOverWaiting(KeySpace& space, Level level) {
  if (level != pool_->last()) return std::nullopt;
  for (size_t dropped = 0; dropped < limits::kEvictBatchBlocks && !waiting_.empty(); ++dropped) {
    if (!LetGoWaiting(space.id)) LetGoAnyWaiting(nullptr);
    if (auto slot = pool_->Allocate(level, space.id, space.shape.block_bytes)) return slot;
  }
  return std::nullopt;
}

}  // namespace reprise::shard
