// Room: eviction between watermarks in the background, and for one block at once when a writer
// needs it.

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "proto/types/limits.h"
#include "service/shard/shard_engine_impl.h"

namespace reprise::shard {
namespace {

Counter CounterOf(DropCause cause) {
  switch (cause) {
    case DropCause::kOwnSpace:
      return Counter::kEvictedOwnSpaceBlocks;
    case DropCause::kReclaim:
      return Counter::kEvictedReclaimBlocks;
    default:
      return Counter::kEvictedWatermarkBlocks;
  }
}

}  // namespace

// A childless block that nobody reads, and beneath which nobody is about to commit.
bool ShardEngineImpl::Evictable(BlockId id) const {
  const BlockRecord& block = blocks_[id];
  return block.children == 0 && block.reserved_children == 0 && block.leases == 0 &&
         block.pins == 0;
}

bool ShardEngineImpl::EvictOne(KeySpace& space, DropCause cause, KeySpaceId for_space) {
  const std::optional<uint32_t> coldest = policy_.Coldest(
      space.id.value, [this](uint32_t id) ABSL_NO_THREAD_SAFETY_ANALYSIS { return Evictable(id); });
  if (!coldest.has_value()) return false;
  counters_.Add(CounterOf(cause));
  Drop(
      space, *coldest,
      Tombstone{.cause = cause, .for_space = for_space, .unix_ms = absl::ToUnixMillis(absl::Now())},
      BlockState::kHidden);
  return true;
}

// In order: a free slot; an extent that others can spare without losing a block; a block of this
// key space; an extent of the key space that has most. A key space with less than its share whose
// own blocks are in warmer use than the others' takes an extent from them before it drops a block
// of its own.
std::optional<SlotRef> ShardEngineImpl::AllocateSlot(KeySpace& space) {
  const uint64_t block_bytes = space.shape.block_bytes;
  if (std::optional<SlotRef> slot = pool_->Allocate(space.id, block_bytes)) return slot;
  const std::vector<KeySpace*> others = OthersByMemory(space);
  const bool found =
      ReclaimFromAny(others, space, /*may_evict=*/false) ||
      (MayGrow(space, others) && ReclaimFromAny(others, space, /*may_evict=*/true)) ||
      EvictOne(space, DropCause::kOwnSpace, space.id) ||
      ReclaimFromAny(others, space, /*may_evict=*/true);
  return found ? pool_->Allocate(space.id, block_bytes) : std::nullopt;
}

// Every other key space that has memory, the one with most first.
std::vector<KeySpace*> ShardEngineImpl::OthersByMemory(const KeySpace& space) const {
  std::vector<std::pair<uint32_t, KeySpace*>> sized;
  for (const auto& [id, other] : spaces_) {
    const uint32_t extents = id == space.id ? 0 : pool_->Use(id).extents;
    if (extents > 0) sized.emplace_back(extents, other.get());
  }
  std::sort(sized.begin(), sized.end(), [](const auto& a, const auto& b) {
    return std::pair(b.first, a.second->id) < std::pair(a.first, b.second->id);
  });
  std::vector<KeySpace*> others;
  for (const auto& [extents, other] : sized) others.push_back(other);
  return others;
}

bool ShardEngineImpl::MayGrow(const KeySpace& space, const std::vector<KeySpace*>& others) const {
  if (others.empty()) return false;
  const uint64_t share = pool_->extents() / (others.size() + 1);
  return pool_->Use(space.id).extents < share &&
         policy_.ColdestStamp(others.front()->id.value) < policy_.ColdestStamp(space.id.value);
}

bool ShardEngineImpl::ReclaimFromAny(const std::vector<KeySpace*>& others, const KeySpace& to,
                                     bool may_evict) {
  for (KeySpace* other : others) {
    if (ReclaimExtent(*other, to, may_evict)) return true;
  }
  return false;
}

bool ShardEngineImpl::ReclaimExtent(KeySpace& from, const KeySpace& to, bool may_evict) {
  const SpaceUse use = pool_->Use(from.id);
  // With an extent's worth of free slots, some extent's blocks fit into the others.
  if (!may_evict && use.free_slots < use.slots_per_extent) return false;
  for (uint32_t extent : MovableExtents(from)) {
    if (EmptyExtent(from, to, extent, may_evict)) {
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

// The key space's extents that hold nothing which has to stay where it is, the emptiest first.
std::vector<uint32_t> ShardEngineImpl::MovableExtents(const KeySpace& space) const {
  std::vector<std::pair<uint32_t, uint32_t>> sized;
  for (uint32_t extent : pool_->ExtentsOf(space.id)) {
    const std::vector<BlockId>& slots = slot_blocks_[extent];
    const bool movable =
        std::all_of(slots.begin(), slots.end(), [this](BlockId id) ABSL_NO_THREAD_SAFETY_ANALYSIS {
          return id == kNoBlock || Movable(id);
        });
    if (movable) sized.emplace_back(pool_->used_slots(extent), extent);
  }
  std::sort(sized.begin(), sized.end());
  std::vector<uint32_t> extents;
  for (const auto& [used, extent] : sized) extents.push_back(extent);
  return extents;
}

bool ShardEngineImpl::EmptyExtent(KeySpace& from, const KeySpace& to, uint32_t extent,
                                  bool may_evict) {
  pool_->SetDraining(extent, true);
  const auto stop = [&] {
    pool_->SetDraining(extent, false);
    return false;
  };
  const uint32_t unowned = pool_->unowned_extents();
  while (pool_->unowned_extents() == unowned &&
         pool_->Use(from.id).free_slots < pool_->used_slots(extent)) {
    if (!may_evict || !EvictOne(from, DropCause::kReclaim, to.id)) return stop();
  }
  if (pool_->unowned_extents() > unowned) {  // eviction alone emptied one
    pool_->SetDraining(extent, false);
    return true;
  }
  const std::vector<BlockId> moving = slot_blocks_[extent];
  for (BlockId id : moving) {
    if (id == kNoBlock) continue;
    const std::optional<SlotRef> target = pool_->Allocate(from.id, from.shape.block_bytes);
    if (!target.has_value()) return stop();
    BlockRecord& block = blocks_[id];
    if (!pool_->Copy(block.slot, *target, from.shape.block_bytes).ok()) {
      pool_->Free(*target);
      return stop();
    }
    SetSlotBlock(block.slot, kNoBlock);
    pool_->Free(std::exchange(block.slot, *target));
    SetSlotBlock(*target, id);
    counters_.Add(Counter::kMovedBlocks);
  }
  return true;
}

void ShardEngineImpl::EvictToWatermark() {
  if (pool_->pressure() <= limits::kEvictHighWatermark) return;
  bool more = true;
  while (more) {
    Locked lock(this);
    more = EvictBatch();
  }
}

// Least recently used first, over all key spaces. False when the low watermark is reached or
// nothing may go.
bool ShardEngineImpl::EvictBatch() {
  absl::flat_hash_set<KeySpaceId> exhausted;
  for (size_t evicted = 0; evicted < limits::kEvictBatchBlocks;) {
    if (stopping_ || pool_->pressure() <= limits::kEvictLowWatermark) return false;
    KeySpace* coldest = nullptr;
    uint64_t stamp = EvictionPolicy::kNeverStamp;
    for (const auto& [id, space] : spaces_) {
      const uint64_t candidate = policy_.ColdestStamp(id.value);
      if (candidate >= stamp || exhausted.contains(id)) continue;
      coldest = space.get();
      stamp = candidate;
    }
    if (coldest == nullptr) return false;
    if (EvictOne(*coldest, DropCause::kWatermark, KeySpaceId())) {
      ++evicted;
    } else {
      exhausted.insert(coldest->id);
    }
  }
  return true;
}

void ShardEngineImpl::EvictLoop() {
  while (true) {
    {
      absl::MutexLock lock(&mu_);
      while (!evict_wanted_ && !stopping_) evict_cv_.Wait(&mu_);
      if (stopping_) return;
      evict_wanted_ = false;
    }
    EvictToWatermark();
  }
}

}  // namespace reprise::shard
