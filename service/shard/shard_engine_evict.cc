// Room: eviction between watermarks in the background, and for one block at once when a writer
// needs it.

#include <pthread.h>

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
    case DropCause::kQuota:
      return Counter::kEvictedQuotaBlocks;
    default:
      return Counter::kEvictedWatermarkBlocks;
  }
}

}  // namespace

// A childless block that nobody reads or has pinned, and beneath which nobody is about to commit.
bool ShardEngineImpl::Evictable(BlockId id) const {
  const BlockRecord& block = blocks_[id];
  return block.children == 0 && block.reserved_children == 0 && block.leases == 0 &&
         block.pins == 0 && block.claim_pins == 0;
}

bool ShardEngineImpl::EvictOne(KeySpace& space, Level level, DropCause cause,
                               KeySpaceId for_space) {
  const std::optional<uint32_t> least =
      order_.Least(GroupOf(space.id, level),
                   [this](uint32_t id) ABSL_NO_THREAD_SAFETY_ANALYSIS { return Evictable(id); });
  if (!least.has_value()) return false;
  counters_.Add(CounterOf(cause));
  if (order_.claim(*least) > 0) counters_.Add(Counter::kEvictedClaimedBlocks);
  Drop(
      space, *least,
      Tombstone{.cause = cause, .for_space = for_space, .unix_ms = absl::ToUnixMillis(absl::Now())},
      BlockState::kHidden);
  return true;
}

// The fastest tier that has room for the asking; when none has, room is made where the coldest
// blocks are. The tenant's quota comes first.
std::optional<SlotRef> ShardEngineImpl::AllocateSlot(KeySpace& space) {
  if (!MakeRoomWithinQuota(space)) return std::nullopt;
  for (Level level = 0; level < pool_->levels(); ++level) {
    if (auto slot = AllocateAt(space, level, /*may_evict=*/false)) return slot;
  }
  for (Level level = pool_->levels(); level > 0; --level) {
    if (auto slot = AllocateAt(space, level - 1, /*may_evict=*/true)) return slot;
  }
  return std::nullopt;
}

// On a tier that is not so full that something is about to go for what comes.
std::optional<SlotRef> ShardEngineImpl::AllocateSpare(KeySpace& space) {
  if (!WithinQuota(space)) return std::nullopt;
  for (Level level = 0; level < pool_->levels(); ++level) {
    if (pool_->pressure(level) > limits::kEvictLowWatermark) continue;
    if (auto slot = AllocateAt(space, level, /*may_evict=*/false)) return slot;
  }
  return std::nullopt;
}

// In order: a free slot; one of what waits for its parent; an extent that others can spare without
// losing a block; a block of this key space; an extent of the key space that has most. A key space
// with less than its share whose own blocks are in warmer use than the others' takes an extent from
// them before it drops a block of its own.
std::optional<SlotRef> ShardEngineImpl::AllocateAt(KeySpace& space, Level level, bool may_evict) {
  const uint64_t block_bytes = space.shape.block_bytes;
  if (auto slot = pool_->Allocate(level, space.id, block_bytes)) return slot;
  if (!pool_->Fits(level, block_bytes)) return std::nullopt;
  if (may_evict) {
    if (auto slot = AllocateOverWaiting(space, level)) return slot;
  }
  const std::vector<KeySpace*> others = OthersByMemory(space, level);
  const Reclaim sparing{.level = level, .to = space.id, .may_evict = false};
  const Reclaim evicting{.level = level, .to = space.id, .may_evict = true};
  const bool found =
      ReclaimFromAny(others, sparing) ||
      (may_evict && ((MayGrow(space, level, others) && ReclaimFromAny(others, evicting)) ||
                     EvictOne(space, level, DropCause::kOwnSpace, space.id) ||
                     ReclaimFromAny(others, evicting)));
  return found ? pool_->Allocate(level, space.id, block_bytes) : std::nullopt;
}

// Every other key space that has memory on the level which it could give, the one with most first.
std::vector<KeySpace*> ShardEngineImpl::OthersByMemory(const KeySpace& space, Level level) const {
  std::vector<std::pair<size_t, KeySpace*>> sized;
  for (const auto& [id, other] : spaces_) {
    if (id == space.id) continue;
    const std::vector<uint32_t> extents = pool_->ExtentsOf(level, id);
    if (std::any_of(extents.begin(), extents.end(),
                    [this](uint32_t extent) { return pool_->Transferable(extent); })) {
      sized.emplace_back(extents.size(), other.get());
    }
  }
  std::sort(sized.begin(), sized.end(), [](const auto& a, const auto& b) {
    return std::pair(b.first, a.second->id) < std::pair(a.first, b.second->id);
  });
  std::vector<KeySpace*> others;
  for (const auto& [extents, other] : sized) others.push_back(other);
  return others;
}

bool ShardEngineImpl::MayGrow(const KeySpace& space, Level level,
                              const std::vector<KeySpace*>& others) const {
  if (others.empty()) return false;
  const uint64_t share = pool_->extents(level) / (others.size() + 1);
  return pool_->Use(level, space.id).extents < share &&
         GoesBefore(order_.LeastRank(GroupOf(others.front()->id, level)),
                    order_.LeastRank(GroupOf(space.id, level)));
}

void ShardEngineImpl::EvictToWatermark() {
  std::vector<TierLoad> loads(pool_->levels());
  while (true) {
    for (Level level = 0; level < pool_->levels(); ++level) {
      loads[level].pressure = pool_->pressure(level);
    }
    const Relief relief = NextRelief(loads);
    if (relief.kind == Relief::Kind::kNone) return;
    bool more = false;
    if (relief.kind == Relief::Kind::kEvict) {
      Locked lock(this);
      more = EvictBatch(relief.level);
    } else {
      more = Demote({.level = relief.level,
                     .blocks_max = limits::kDemoteBatchBlocks,
                     .to_watermark = true}) > 0;
    }
    loads[relief.level].stuck = !more;
  }
}

// Drops what is worth least of a tier, over all key spaces. False when the low watermark is
// reached or nothing may go.
bool ShardEngineImpl::EvictBatch(Level level) {
  absl::flat_hash_set<uint32_t> exhausted;
  for (size_t evicted = 0; evicted < limits::kEvictBatchBlocks;) {
    if (stopping_ || pool_->pressure(level) <= limits::kEvictLowWatermark) return false;
    if (level == pool_->last() && LetGoAny(nullptr)) {
      ++evicted;
      continue;
    }
    std::optional<Group> coldest = ColdestGroup(level, exhausted);
    // All that is left here has blocks of other tiers beneath it: those are in the way, unless it
    // stays whatever goes.
    if (!coldest.has_value() && MayYieldEnds(level))
      coldest = ColdestGroup(std::nullopt, exhausted);
    if (!coldest.has_value()) return false;
    if (EvictOne(*coldest->space, coldest->level, DropCause::kWatermark, KeySpaceId())) {
      ++evicted;
      if (coldest->level != level) exhausted.erase(GroupOf(coldest->space->id, level));
    } else {
      exhausted.insert(GroupOf(coldest->space->id, coldest->level));
    }
  }
  return true;
}

// Whether a block of the level is there that no claim pins.
bool ShardEngineImpl::MayYieldEnds(Level level) const {
  uint64_t blocks = 0;
  for (const auto& [id, space] : spaces_) blocks += order_.tracked(GroupOf(id, level));
  return blocks > pinned_blocks_[level];
}

void ShardEngineImpl::EvictLoop() {
  ::pthread_setname_np(::pthread_self(), "reprise-evict");
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
