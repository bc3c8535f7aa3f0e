// Which tier a block is on, and its way down: chosen and given a slot under the lock, copied and
// checked outside it while a pin holds it in place, and moved under the lock when nobody has taken
// it into use meanwhile.

#include <algorithm>
#include <utility>

#include "proto/types/limits.h"
#include "proto/types/status_macros.h"
#include "service/shard/shard_engine_impl.h"

namespace reprise::shard {

void AddToTiers(Tier tier, std::vector<TierRun>& runs) {
  if (runs.empty() || runs.back().tier != tier) runs.push_back({.tier = tier});
  ++runs.back().blocks;
}

std::vector<TierRun> ShardEngineImpl::TiersOf(std::span<const BlockId> run) const {
  std::vector<TierRun> runs;
  for (BlockId id : run) AddToTiers(pool_->TierOf(blocks_[id].slot), runs);
  return runs;
}

lanes::MemoryKind ShardEngineImpl::MemoryOf(SlotRef slot) const {
  switch (pool_->TierOf(slot)) {
    case Tier::kHbm:
      return lanes::MemoryKind::kDevice;
    case Tier::kNvme:
      return lanes::MemoryKind::kFile;
    case Tier::kDram:
      break;
  }
  return lanes::MemoryKind::kHost;
}

bool ShardEngineImpl::UnderPressure() const {
  for (Level level = 0; level < pool_->levels(); ++level) {
    if (pool_->pressure(level) > limits::kEvictHighWatermark) return true;
  }
  return false;
}

// Whose coldest block is worth least, on one level or on any; nullopt when all are exhausted or
// empty.
std::optional<ShardEngineImpl::Group> ShardEngineImpl::ColdestGroup(
    std::optional<Level> level, const absl::flat_hash_set<uint32_t>& exhausted,
    const Tenant* only) const {
  std::optional<Group> coldest;
  std::optional<EvictionRank> least;
  for (const auto& [id, space] : spaces_) {
    if (only != nullptr && space->tenant != *only) continue;
    for (Level at = level.value_or(0); at <= level.value_or(pool_->last()); ++at) {
      if (exhausted.contains(GroupOf(id, at))) continue;
      const std::optional<EvictionRank> rank = order_.LeastRank(GroupOf(id, at));
      if (!GoesBefore(rank, least)) continue;
      coldest = Group{.space = space.get(), .level = at};
      least = rank;
    }
  }
  return coldest;
}

// Returns how many slots of the level it freed.
size_t ShardEngineImpl::Demote(const DemotionOrder& order) {
  MakeRoomBelow(order);
  std::vector<Demotion> begun;
  const size_t dropped = BeginDemotions(order, begun);
  for (Demotion& demotion : begun) demotion.outcome = Move(*pool_, demotion.move);
  return dropped + FinishDemotions(begun);
}

// Where the next tier is not the last one, what is coldest there moves on rather than being dropped
// for what comes.
void ShardEngineImpl::MakeRoomBelow(const DemotionOrder& order) {
  const Level below = order.level + 1;
  if (below >= pool_->last()) return;
  DemotionOrder next{.level = below, .only = order.only, .blocks_max = order.blocks_max};
  if (order.only.has_value()) {
    Locked lock(this);
    if (!spaces_.contains(*order.only)) return;
    const uint64_t room = pool_->Room(below, *order.only, SpaceOf(*order.only).shape.block_bytes);
    next.blocks_max -= std::min<uint64_t>(room, next.blocks_max);
  } else {
    next.to_watermark = true;
  }
  if (next.blocks_max > 0) Demote(next);
}

// Returns how many blocks of the level it dropped for want of room below.
size_t ShardEngineImpl::BeginDemotions(const DemotionOrder& order, std::vector<Demotion>& begun) {
  Locked lock(this);
  absl::flat_hash_set<uint32_t> exhausted;
  const auto capacity_bytes = static_cast<double>(pool_->capacity_bytes(order.level));
  uint64_t leaving_bytes = 0;
  size_t dropped = 0;
  while (begun.size() + dropped < order.blocks_max && !stopping_) {
    const double pressure =
        pool_->pressure(order.level) - static_cast<double>(leaving_bytes) / capacity_bytes;
    if (order.to_watermark && pressure <= limits::kEvictLowWatermark) break;
    std::optional<Group> group;
    if (!order.only.has_value()) {
      group = ColdestGroup(order.level, exhausted);
    } else if (spaces_.contains(*order.only) &&
               !exhausted.contains(GroupOf(*order.only, order.level))) {
      group = Group{.space = &SpaceOf(*order.only), .level = order.level};
    }
    if (!group.has_value()) break;
    const std::optional<uint32_t> id = order_.Least(
        GroupOf(group->space->id, group->level),
        [this](uint32_t block) ABSL_NO_THREAD_SAFETY_ANALYSIS { return Movable(block); });
    if (id.has_value() && BeginDemotion(*group, *id, begun)) {
      leaving_bytes += SlotAllocator::SlotBytes(group->space->shape.block_bytes);
    } else if (id.has_value() &&
               EvictOne(*group->space, group->level, DropCause::kWatermark, KeySpaceId())) {
      ++dropped;
    } else {
      exhausted.insert(GroupOf(group->space->id, group->level));
    }
  }
  return dropped;
}

// False when there is no room for it below.
bool ShardEngineImpl::BeginDemotion(const Group& group, BlockId id, std::vector<Demotion>& begun) {
  BlockRecord& block = blocks_[id];
  ++block.pins;  // also against being dropped to make room for itself
  const std::optional<SlotRef> target =
      AllocateAt(*group.space, group.level + 1, /*may_evict=*/true);
  if (!target.has_value()) {
    --block.pins;
    return false;
  }
  moving_[id] = *target;
  Departs(id);
  SetSlotBlock(*target, id);
  begun.push_back({.id = id,
                   .move = {.from = block.slot,
                            .to = *target,
                            .shape = group.space->shape,
                            .checksum = block.checksum}});
  return true;
}

size_t ShardEngineImpl::FinishDemotions(const std::vector<Demotion>& demotions) {
  if (demotions.empty()) return 0;
  Locked lock(this);
  std::vector<BlockId> moved;
  for (const Demotion& demotion : demotions) {
    if (FinishDemotion(demotion)) moved.push_back(demotion.id);
  }
  const size_t freed = moved.size();
  // One that was found corrupt took those beneath it along.
  std::erase_if(moved, [this](BlockId id) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return blocks_[id].state != BlockState::kCommitted;
  });
  PublishMoves(moved);
  pressure_moved_ = true;
  return freed;
}

bool ShardEngineImpl::FinishDemotion(const Demotion& demotion) {
  const BlockId id = demotion.id;
  const SlotRef target = demotion.move.to;
  moving_.erase(id);
  BlockRecord& block = blocks_[id];
  --block.pins;
  KeySpace& space = SpaceOf(block.space);
  const bool corrupt = demotion.outcome == MoveOutcome::kCorrupt;
  // A tier that was lost meanwhile was swept before this block came.
  const bool lost = pool_->lost(pool_->LevelOf(target));
  if (demotion.outcome != MoveOutcome::kMoved || lost || !Movable(id)) {
    SetSlotBlock(target, kNoBlock);
    pool_->Free(target);
    counters_.Add(Counter::kDemotionsGivenUp);
    if (block.state == BlockState::kCommitted) Arrived(id);
    if (corrupt && block.state == BlockState::kCommitted) {
      QuarantineBlock(space, id, "a checksum that did not match when it moved to another tier");
    }
    FreeIfIdle(id);
    return false;
  }
  SetSlotBlock(block.slot, kNoBlock);
  const Level level = pool_->LevelOf(target);
  if (block.claim_pins > 0) {
    --pinned_blocks_[pool_->LevelOf(block.slot)];
    ++pinned_blocks_[level];
  }
  pool_->Free(std::exchange(block.slot, target));
  order_.Move(id, GroupOf(space.id, level));
  Arrived(id);
  NoteKept(block.slot);
  REPRISE_CHECK(index_.Replace(SpaceKey{space.id, block.key},
                               IndexEntry{.block = id, .tier = pool_->tier(level)}));
  counters_.Add(Counter::kDemotedBlocks);
  counters_.Add(Counter::kDemotedBytes, space.shape.block_bytes);
  return true;
}

// Watchers hear of the new tier as of a block that is stored, pieces of a chain in prefix order: a
// run becomes cold from its end.
void ShardEngineImpl::PublishMoves(std::span<const BlockId> coldest_first) {
  if (watchers_.empty()) return;
  std::vector<BlockKey> keys;
  for (size_t i = coldest_first.size(); i > 0; --i) {
    const BlockRecord& block = blocks_[coldest_first[i - 1]];
    keys.push_back(block.key);
    if (i > 1 && blocks_[coldest_first[i - 2]].parent == coldest_first[i - 1]) continue;
    Publish({.space = &SpaceOf(block.space), .tier = pool_->TierOf(block.slot)}, keys);
    keys.clear();
  }
}

// Before a writer is granted slots: where the first tier has no room left for `keys`, the coldest
// blocks there move down. They are the key space's own; while it has less than its share and the
// others' are colder, they are of the one that has most, whose blocks can then be moved together.
// One batch at most; the rest of a long prompt is granted below.
void ShardEngineImpl::MakeRoomOnTop(KeySpaceId space_id, std::span<const BlockKey> keys) {
  if (pool_->levels() == 1 || keys.size() > limits::kPromptBlocksMax) return;
  DemotionOrder order{.level = 0, .only = space_id};
  {
    Locked lock(this);
    if (!spaces_.contains(space_id)) return;
    const KeySpace& space = SpaceOf(space_id);
    const uint64_t block_bytes = space.shape.block_bytes;
    if (!pool_->Fits(0, block_bytes)) return;
    const std::vector<BlockId> stored = StoredRun(space, keys);
    // What the new blocks hang from is in use.
    for (auto block = stored.rbegin(); block != stored.rend(); ++block) order_.Refresh(*block);
    const uint64_t missing = keys.size() - stored.size();
    const uint64_t room = pool_->Room(0, space_id, block_bytes);
    if (room >= missing) return;
    uint64_t wanted = missing - room;
    const std::vector<KeySpace*> others = OthersByMemory(space, 0);
    if (MayGrow(space, 0, others)) {
      const KeySpace& most = *others.front();
      const uint64_t extent_slots = pool_->Use(0, most.id).slots_per_extent;
      order.only = most.id;
      wanted =
          extent_slots - std::min(pool_->Room(0, most.id, most.shape.block_bytes), extent_slots);
    }
    order.blocks_max = std::min<uint64_t>(wanted, limits::kDemoteBatchBlocks);
  }
  Demote(order);
}

}  // namespace reprise::shard
