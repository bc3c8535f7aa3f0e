// Blocks of a kept disk that nobody can have yet. A crash leaves the ends of chains whose first
// blocks were in memory: they are as good as ever, and are stored again with the block that they
// hang from, whoever brings that. And it leaves a journal that may be behind: what it says is
// checked before it is believed. Until then they are the first to go for room.

#include <utility>

#include "proto/types/limits.h"
#include "service/shard/shard_engine_impl.h"

namespace reprise::shard {

// Stores a waiting block whose bytes were checked, if what it hangs from is stored.
void ShardEngineImpl::EnterIfReady(KeySpace& space, BlockId id) {
  if (!waiting_.proved(id)) return;
  BlockId parent = kNoBlock;
  if (const std::optional<BlockKey>& key = waiting_.ParentOf(id); key.has_value()) {
    const std::optional<IndexEntry> entry = index_.Find(SpaceKey{space.id, *key});
    if (!entry.has_value()) return;
    parent = entry->block;
  }
  if (EnterWaiting(space, id, parent)) Adopt(space, id);
}

// `stored` just was: so is now what waited for it, and for that in turn.
void ShardEngineImpl::Adopt(KeySpace& space, BlockId stored) {
  if (waiting_.empty()) return;
  std::vector<BlockId> parents = {stored};
  while (!parents.empty()) {
    const BlockId parent = parents.back();
    parents.pop_back();
    for (const BlockId id : waiting_.Below(SpaceKey{space.id, blocks_[parent].key})) {
      if (waiting_.proved(id) && EnterWaiting(space, id, parent)) parents.push_back(id);
    }
  }
}

// Of the last process, among all that it left.
uint64_t ShardEngineImpl::LastUseOfWaiting(BlockId id) const {
  return found_blocks_ - waiting_.age(id);
}

// False when it is of no use: who is writing it, or wrote it meanwhile, has it.
bool ShardEngineImpl::EnterWaiting(KeySpace& space, BlockId id, BlockId parent) {
  const BlockRecord& block = blocks_[id];
  const SpaceKey key{space.id, block.key};
  const uint32_t depth = parent == kNoBlock ? 0 : blocks_[parent].depth + 1;
  if (block.depth != depth || reserved_.contains(key) || index_.Find(key).has_value()) {
    LetGo(id);
    return false;
  }
  const uint64_t last_use = LastUseOfWaiting(id);
  waiting_.Erase(id);
  EnterFound(space, id, parent, last_use);
  adopted_.push_back(id);
  return true;
}

void ShardEngineImpl::EnterFound(KeySpace& space, BlockId id, BlockId parent, uint64_t last_use) {
  blocks_[id].parent = parent;
  --space.held_back;
  Enter(space, id, /*copy=*/true);
  order_.Backdate(id, last_use);
}

// Watchers hear of what was adopted, chain by chain: a child comes after its parent, and a branch
// begins an event.
void ShardEngineImpl::PublishAdopted(const KeySpace& space) {
  const std::vector<BlockId> adopted = std::exchange(adopted_, {});
  counters_.Add(Counter::kAdoptedBlocks, adopted.size());
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

// It waits no more, for whatever reason.
void ShardEngineImpl::LetGo(BlockId id) {
  waiting_.Erase(id);
  counters_.Add(Counter::kUnadoptedBlocks);
  blocks_[id].state = BlockState::kHidden;
  NoteKept(blocks_[id].slot);
  FreeIfIdle(id);
}

// The coldest of a key space. False when none waits.
bool ShardEngineImpl::LetGoColdest(KeySpaceId space) {
  const std::optional<BlockId> coldest = waiting_.Coldest(space);
  if (coldest.has_value()) LetGo(*coldest);
  return coldest.has_value();
}

// Of any key space, or of a tenant's.
bool ShardEngineImpl::LetGoAny(const Tenant* only) {
  if (waiting_.empty()) return false;
  for (const auto& [id, space] : spaces_) {
    if (only != nullptr && space->tenant != *only) continue;
    if (LetGoColdest(id)) return true;
  }
  return false;
}

// Those of an extent, which is to be emptied.
void ShardEngineImpl::LetGoIn(uint32_t extent) {
  if (waiting_.empty()) return;
  const std::vector<BlockId> blocks = slot_blocks_[extent];
  for (const BlockId id : blocks) {
    if (id != kNoBlock && blocks_[id].state == BlockState::kWaiting) LetGo(id);
  }
}

// What waits under any of `keys`, and all that hangs from it. Returns how many.
uint32_t ShardEngineImpl::LetGoBelow(const KeySpace& space, std::vector<BlockKey> keys) {
  uint32_t let_go = 0;
  while (!keys.empty() && !waiting_.empty()) {
    const SpaceKey key{space.id, keys.back()};
    keys.pop_back();
    std::vector<BlockId> blocks = waiting_.Below(key);
    if (const std::optional<BlockId> own = waiting_.Find(key)) blocks.push_back(*own);
    for (const BlockId id : blocks) {
      if (blocks_[id].key != key.key) keys.push_back(blocks_[id].key);
      LetGo(id);
      ++let_go;
    }
  }
  return let_go;
}

// Room on the kept disk at the cost of what waits there of the same key space. What waits of others
// goes with an extent that is taken from them.
std::optional<SlotRef> ShardEngineImpl::AllocateOverWaiting(KeySpace& space, Level level) {
  if (level != pool_->last()) return std::nullopt;
  for (size_t tries = 0; tries < limits::kEvictBatchBlocks && LetGoColdest(space.id); ++tries) {
    if (auto slot = pool_->Allocate(level, space.id, space.shape.block_bytes)) return slot;
  }
  return std::nullopt;
}

}  // namespace reprise::shard
