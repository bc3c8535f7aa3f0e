// All accounting, recomputed from nothing.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/types/status_macros.h"
#include "service/shard/shard_engine_impl.h"

namespace reprise::shard {

struct ShardEngineImpl::Recount {
  struct Space {
    uint64_t blocks = 0, reserved = 0, held_back = 0;
    std::vector<uint64_t> by_level;  // committed
  };
  absl::flat_hash_set<SlotRef> slots;
  absl::flat_hash_map<KeySpaceId, Space> spaces;
  size_t committed = 0;
  size_t reserved = 0;
  size_t waiting = 0;
};

namespace {

template <typename... Parts>
absl::Status Wrong(const Parts&... parts) {
  return absl::InternalError(absl::StrCat(parts...));
}

}  // namespace

absl::Status ShardEngineImpl::CheckInvariants() const {
  absl::MutexLock lock(&mu_);
  Recount recount;
  REPRISE_RETURN_IF_ERROR(CheckBlocks(recount));
  REPRISE_RETURN_IF_ERROR(CheckMoving(recount));
  REPRISE_RETURN_IF_ERROR(pool_->CheckInvariants(recount.slots));
  REPRISE_RETURN_IF_ERROR(CheckForest());
  REPRISE_RETURN_IF_ERROR(CheckHolders());
  REPRISE_RETURN_IF_ERROR(CheckClaims());
  for (const TenantUse& use : TenantUses()) {
    if (use.quota_bytes != TenantQuotas::kNone && use.used_bytes > use.quota_bytes)
      return Wrong("tenant ", use.tenant.name, " has ", use.used_bytes, " bytes, and its quota is ",
                   use.quota_bytes);
  }
  return CheckSpaces(recount);
}

absl::Status ShardEngineImpl::CheckBlocks(Recount& recount) const {
  for (BlockId id = 0; id < blocks_.size(); ++id) {
    if (blocks_[id].state == BlockState::kFree) {
      if (order_.tracks(id)) return Wrong("free block ", id, " is up for eviction");
      continue;
    }
    REPRISE_RETURN_IF_ERROR(CheckBlock(id, recount));
  }
  if (index_.size() != recount.committed)
    return Wrong("the index has ", index_.size(), " of ", recount.committed);
  if (reserved_.size() != recount.reserved)
    return Wrong(reserved_.size(), " keys pending, not ", recount.reserved);
  if (waiting_.size() != recount.waiting)
    return Wrong(waiting_.size(), " blocks wait for their parents, not ", recount.waiting);
  size_t quarantined = 0;
  for (BlockId id : quarantined_)
    quarantined += blocks_[id].state == BlockState::kQuarantined ? 1 : 0;
  if (quarantined != quarantined_.size())
    return Wrong("the quarantine list has a block of another state");
  return absl::OkStatus();
}

absl::Status ShardEngineImpl::CheckBlock(BlockId id, Recount& recount) const {
  const BlockRecord& block = blocks_[id];
  if (!spaces_.contains(block.space)) return Wrong("block ", id, " has no key space");
  if (!recount.slots.insert(block.slot).second) return Wrong("block ", id, " shares its slot");
  if (slot_blocks_[block.slot.extent][block.slot.index] != id)
    return Wrong("block ", id, "'s slot has another owner");
  Recount::Space& space = recount.spaces[block.space];
  if (order_.tracks(id) != (block.state == BlockState::kCommitted))
    return Wrong("block ", id, " is judged wrongly");
  switch (block.state) {
    case BlockState::kFree:
      break;
    case BlockState::kReserved: {
      ++space.reserved;
      ++recount.reserved;
      const auto it = reserved_.find(SpaceKey{block.space, block.key});
      if (it == reserved_.end() || it->second != id)
        return Wrong("reserved block ", id, " is not pending");
      if (index_.Find(SpaceKey{block.space, block.key}).has_value())
        return Wrong("pending block ", id, " is stored");
      break;
    }
    case BlockState::kCommitted:
      ++space.blocks;
      ++recount.committed;
      space.by_level.resize(pool_->levels());
      ++space.by_level[pool_->LevelOf(block.slot)];
      return CheckCommitted(id);
    case BlockState::kHidden:
      ++space.held_back;
      if (block.leases == 0 && block.pins == 0)
        return Wrong("hidden block ", id, " keeps its slot for nobody");
      break;
    case BlockState::kQuarantined:
      ++space.held_back;
      break;
    case BlockState::kWaiting:
      ++space.held_back;
      ++recount.waiting;
      if (waiting_.Find(SpaceKey{block.space, block.key}) != id)
        return Wrong("block ", id, " waits under another key");
      if (index_.Find(SpaceKey{block.space, block.key}).has_value())
        return Wrong("block ", id, " waits and is stored");
      if (pool_->LevelOf(block.slot) != pool_->last())
        return Wrong("block ", id, " waits on another tier than the kept disk");
      break;
  }
  return absl::OkStatus();
}

// A block on its way to another tier holds the slot that it goes to besides its own.
absl::Status ShardEngineImpl::CheckMoving(Recount& recount) const {
  for (const auto& [id, target] : moving_) {
    const BlockRecord& block = blocks_[id];
    if (block.state == BlockState::kFree || block.state == BlockState::kReserved || block.pins == 0)
      return Wrong("block ", id, " moves and is not held in place");
    if (!recount.slots.insert(target).second) return Wrong("block ", id, " moves to a slot in use");
    if (slot_blocks_[target.extent][target.index] != id)
      return Wrong("the slot that block ", id, " moves to has another owner");
  }
  return absl::OkStatus();
}

absl::Status ShardEngineImpl::CheckCommitted(BlockId id) const {
  const BlockRecord& block = blocks_[id];
  const std::optional<IndexEntry> entry = index_.Find(SpaceKey{block.space, block.key});
  if (!entry.has_value() || entry->block != id) return Wrong("block ", id, " is not in the index");
  if (withdrawn_.contains(pool_->LevelOf(block.slot)))
    return Wrong("block ", id, " is stored on a tier that is lost");
  if (entry->tier != pool_->TierOf(block.slot))
    return Wrong("block ", id, " is on another tier than the index says");
  uint32_t near_children = 0;
  for (BlockId child = block.first_child; child != kNoBlock; child = blocks_[child].next_sibling) {
    near_children += blocks_[child].near ? 1 : 0;
  }
  if (block.near != IsNear(id) || block.near_children != near_children)
    return Wrong("block ", id, " and its parent or children disagree on being on one tier");
  if (order_.is_end(id) != IsEnd(id)) return Wrong("block ", id, " is wrongly taken for an end");
  if (block.parent == kNoBlock) {
    return block.depth == 0 ? absl::OkStatus() : Wrong("block ", id, " lost its parent");
  }
  const BlockRecord& parent = blocks_[block.parent];
  const bool stands = parent.state == BlockState::kCommitted && parent.space == block.space &&
                      parent.depth + 1 == block.depth;
  return stands ? absl::OkStatus()
                : Wrong("block ", id, " hangs from a block that is not stored: a hole");
}

// Children are linked and counted; every committed block is reached from its key space's roots.
absl::Status ShardEngineImpl::CheckForest() const {
  absl::flat_hash_map<BlockId, uint32_t> reserved_children;
  for (const auto& [key, id] : reserved_) {
    const BlockRecord& block = blocks_[id];
    if (block.parent != kNoBlock && blocks_.ParentStands(block)) ++reserved_children[block.parent];
  }
  for (const auto& [space_id, space] : spaces_) {
    uint64_t reached = 0;
    for (BlockId root = space->roots; root != kNoBlock; root = blocks_[root].next_sibling) {
      for (BlockId id = root; id != kNoBlock; id = blocks_.NextBelow(root, id, false)) {
        ++reached;
        uint32_t children = 0;
        for (BlockId child = blocks_[id].first_child; child != kNoBlock;
             child = blocks_[child].next_sibling) {
          if (blocks_[child].parent != id)
            return Wrong("block ", child, " is linked below a stranger");
          ++children;
        }
        if (children != blocks_[id].children)
          return Wrong("block ", id, " counts its children wrongly");
      }
    }
    if (reached != space->blocks)
      return Wrong("key space ", space_id.value, ": ", reached, " blocks reached of ",
                   space->blocks);
  }
  for (BlockId id = 0; id < blocks_.size(); ++id) {
    if (blocks_[id].state == BlockState::kFree) continue;
    const auto it = reserved_children.find(id);
    const uint32_t expected = it == reserved_children.end() ? 0 : it->second;
    if (blocks_[id].reserved_children != expected)
      return Wrong("block ", id, " counts reservations below it wrongly");
  }
  return absl::OkStatus();
}

// Leases, reservations and attachments name each other, and every lease is counted by its blocks.
absl::Status ShardEngineImpl::CheckHolders() const {
  absl::flat_hash_map<BlockId, uint32_t> leases;
  size_t held_leases = 0, held_reservations = 0;
  for (const auto& [attachment, holdings] : holdings_) {
    held_leases += holdings.leases.size();
    held_reservations += holdings.reservations.size();
    for (LeaseId lease : holdings.leases) {
      const auto it = leases_.find(lease);
      if (it == leases_.end() || it->second.attachment != attachment)
        return Wrong("lease ", lease.value, " is lost");
    }
    for (ReservationId id : holdings.reservations) {
      const auto it = reservations_.find(id);
      if (it == reservations_.end() || it->second.attachment != attachment)
        return Wrong("reservation ", id.value, " is lost");
    }
  }
  if (held_leases != leases_.size())
    return Wrong(leases_.size(), " leases, ", held_leases, " held");
  if (held_reservations != reservations_.size())
    return Wrong(reservations_.size(), " reservations, ", held_reservations, " held");
  for (const auto& [id, lease] : leases_) {
    for (BlockId block : lease.blocks) ++leases[block];
  }
  for (BlockId id = 0; id < blocks_.size(); ++id) {
    const auto it = leases.find(id);
    if (blocks_[id].leases != (it == leases.end() ? 0 : it->second))
      return Wrong("block ", id, " counts its leases wrongly");
  }
  size_t open = 0;
  for (const auto& [id, reservation] : reservations_) {
    for (size_t i = 0; i < reservation.blocks.size(); ++i) {
      const BlockId block = reservation.blocks[i];
      if (block == kNoBlock || blocks_[block].generation != reservation.generations[i]) continue;
      open += blocks_[block].state == BlockState::kReserved ? 1 : 0;
    }
  }
  return open == reserved_.size()
             ? absl::OkStatus()
             : Wrong(reserved_.size(), " blocks reserved, ", open, " by somebody");
}

// Every block from one that a claim rests on to its chain's first is counted as kept, once.
absl::Status ShardEngineImpl::CheckClaims() const {
  absl::flat_hash_map<BlockId, uint32_t> claims, pins;
  absl::flat_hash_map<const TenantTally*, TenantTally> tallies;
  TenantTally all;
  size_t ahead = 0;
  const auto keep = [&](BlockId from, absl::flat_hash_map<BlockId, uint32_t>& counts,
                        uint64_t TenantTally::*bytes) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    for (BlockId id = from; id != kNoBlock; id = blocks_[id].parent) {
      if (counts[id]++ > 0) return;
      const KeySpace& space = SpaceOf(blocks_[id].space);
      const uint64_t slot_bytes = SlotAllocator::SlotBytes(space.shape.block_bytes);
      tallies[space.tally.get()].*bytes += slot_bytes;
      all.*bytes += slot_bytes;
    }
  };
  for (const ClaimId id : claims_.All()) {
    const Claim& claim = claims_[id];
    ahead += claim.ahead.size();
    ++tallies[claim.owner.get()].claims;
    tallies[claim.owner.get()].keys_ahead += claim.ahead.size();
    if (claim.rests == kNoBlock) continue;
    if (blocks_[claim.rests].state != BlockState::kCommitted ||
        blocks_[claim.rests].space != claim.space)
      return Wrong("claim ", id.value, " rests on a block that is not stored");
    keep(claim.rests, claims, &TenantTally::claimed_bytes);
    if (claim.rank == kPinRank) keep(claim.rests, pins, &TenantTally::pinned_bytes);
  }
  if (ahead != claims_.keys_ahead()) return Wrong("keys ahead of claims are counted wrongly");
  for (BlockId id = 0; id < blocks_.size(); ++id) {
    if (blocks_[id].claims != claims[id] || blocks_[id].claim_pins != pins[id])
      return Wrong("block ", id, " counts its claims wrongly");
    if (order_.tracks(id) && order_.claim(id) != ClaimRankOf(id))
      return Wrong("block ", id, " has not the rank of its strongest claim");
  }
  std::vector<uint64_t> pinned(pool_->levels());
  for (const auto& [id, count] : pins) {
    if (count > 0) ++pinned[pool_->LevelOf(blocks_[id].slot)];
  }
  if (pinned != pinned_blocks_) return Wrong("pinned blocks of a level are counted wrongly");
  if (all.claimed_bytes != claimed_.claimed_bytes || all.pinned_bytes != claimed_.pinned_bytes)
    return Wrong("claimed bytes are counted wrongly");
  for (const auto& [id, space] : spaces_) {
    const TenantTally& tally = tallies[space->tally.get()];
    if (tally.claimed_bytes != space->tally->claimed_bytes ||
        tally.pinned_bytes != space->tally->pinned_bytes || tally.claims != space->tally->claims ||
        tally.keys_ahead != space->tally->keys_ahead)
      return Wrong("key space ", id.value, ": its tenant's claimed bytes are counted wrongly");
  }
  return absl::OkStatus();
}

absl::Status ShardEngineImpl::CheckSpaces(const Recount& recount) const {
  for (const auto& [id, space] : spaces_) {
    const auto it = recount.spaces.find(id);
    const Recount::Space actual = it == recount.spaces.end() ? Recount::Space() : it->second;
    if (actual.blocks != space->blocks || actual.reserved != space->reserved ||
        actual.held_back != space->held_back) {
      return Wrong("key space ", id.value, " counts its blocks wrongly");
    }
    if (space->tally->bytes != TenantBytes(space->tenant))
      return Wrong("key space ", id.value, ": its tenant's bytes are counted wrongly");
    for (Level level = 0; level < pool_->levels(); ++level) {
      const uint64_t stored = actual.by_level.empty() ? 0 : actual.by_level[level];
      if (order_.tracked(GroupOf(id, level)) != stored)
        return Wrong("key space ", id.value, ": not all blocks are judged with their tier");
    }
  }
  return absl::OkStatus();
}

}  // namespace reprise::shard
