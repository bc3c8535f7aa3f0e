// What the last process left on a kept disk: its key spaces, its blocks in their old slots, and its
// claims. All blocks wait at first, and those whose chains are whole are stored at once.

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "kernels/quantize/spec_codec.h"
#include "proto/types/status_macros.h"
#include "service/shard/shard_engine_impl.h"

namespace reprise::shard {

// Before anybody else has the engine.
void ShardEngineImpl::Restore(KeptDisk::Found found) {
  absl::MutexLock lock(&mu_);
  kept_use_.clean = found.contents.closed;
  kept_use_.why_empty = std::move(found.why_empty);
  SpaceNumbers spaces;
  for (const KeptSpace& space : found.contents.spaces) {
    if (const KeySpaceId id = RestoreSpace(space)) spaces[space.number] = id;
  }
  // From what was used last: what has no room any more is what was used longest ago.
  std::vector<BlockId> restored;
  absl::flat_hash_set<SpaceKey> seen;
  std::vector<KeptBlock>& blocks = found.contents.blocks;
  for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) {
    const auto space = spaces.find(block->space);
    if (space == spaces.end() || !seen.insert(SpaceKey{space->second, block->key}).second) continue;
    const BlockId id = RestoreBlock(SpaceOf(space->second), *block);
    if (id != kNoBlock) restored.push_back(id);
  }
  for (const BlockId id : restored) {
    if (blocks_[id].state == BlockState::kWaiting && !waiting_.Contains(id)) RestoreRoot(id);
  }
  adopted_.clear();  // nobody watches yet
  for (auto id = restored.rbegin(); id != restored.rend(); ++id) {
    if (blocks_[*id].state == BlockState::kCommitted) order_.Refresh(*id);
  }
  for (const KeptClaim& claim : found.contents.claims) {
    const auto space = spaces.find(claim.space);
    if (space != spaces.end()) RestoreClaim(SpaceOf(space->second), claim);
  }
  kept_use_.restored_blocks = restored.size();
  counters_.Add(Counter::kRestoredBlocks, restored.size());
  if (!kept_use_.clean) {
    for (const BlockId id : restored) {
      if (blocks_[id].state != BlockState::kFree)
        to_scrub_.push_back({.id = id, .generation = blocks_[id].generation});
    }
  }
}

// None when its blocks cannot be of use to this version, or this shard.
KeySpaceId ShardEngineImpl::RestoreSpace(const KeptSpace& kept) {
  if (!ValidateSpec(kept.spec).ok() || FingerprintOf(kept.spec) != kept.fingerprint) return {};
  const auto codec = kernels::CodecOf(kept.spec);
  if (!codec.ok()) return {};
  const BlockLayout layout = kernels::StoredLayoutOf(kept.spec, *codec);
  const bool as_ever = layout.block_bytes == kept.shape.block_bytes &&
                       layout.layer_bytes == kept.shape.section_bytes;
  if (!as_ever || !pool_->Fits(pool_->last(), layout.block_bytes)) return {};
  return FindOrAddSpace(kept.tenant, kept.spec, layout, kept.fingerprint).value_or(KeySpaceId());
}

// kNoBlock when its place, or its tenant's quota, does not allow for it any more.
BlockId ShardEngineImpl::RestoreBlock(KeySpace& space, KeptBlock& kept) {
  if (kept.parent.has_value() != (kept.depth > 0) || !WithinQuota(space)) return kNoBlock;
  const std::optional<SlotRef> slot =
      pool_->Take(pool_->last(), space.id, space.shape.block_bytes, kept.slot);
  if (!slot.has_value()) return kNoBlock;
  const BlockId id = blocks_.Add();
  BlockRecord& block = blocks_[id];
  block.key = kept.key;
  block.checksum = kept.checksum;
  block.space = space.id;
  block.slot = *slot;
  block.state = BlockState::kWaiting;
  block.depth = kept.depth;
  block.token_position = kept.token_position;
  block.written_bytes = space.shape.block_bytes;
  block.chain =
      std::make_shared<const ChainInfo>(ChainInfo{.session_id = std::move(kept.session_id),
                                                  .token_ids = std::move(kept.token_ids),
                                                  .first_block = kept.depth});
  SetSlotBlock(*slot, id);
  SlotTaken(space);
  ++space.held_back;
  if (kept.parent.has_value()) waiting_.Add(id, SpaceKey{space.id, *kept.parent});
  return id;
}

void ShardEngineImpl::RestoreRoot(BlockId id) {
  KeySpace& space = SpaceOf(blocks_[id].space);
  --space.held_back;
  Enter(space, id, /*copy=*/true);
  Adopt(space, id);
}

// What of its prefix is stored again and affordable is kept again; the rest is not waited for where
// that is less than it was.
void ShardEngineImpl::RestoreClaim(KeySpace& space, const KeptClaim& kept) {
  const absl::Duration left = kept.ends - absl::Now();
  if (left <= absl::ZeroDuration() || claims_.Find(space.id, kept.name).has_value()) return;
  std::vector<BlockId> run;
  if (kept.rests.has_value()) {
    const std::optional<IndexEntry> entry = index_.Find(SpaceKey{space.id, *kept.rests});
    if (!entry.has_value()) return;
    for (BlockId id = entry->block; id != kNoBlock; id = blocks_[id].parent) run.push_back(id);
    std::reverse(run.begin(), run.end());
  }
  const bool pin = kept.rank == kPinRank;
  const size_t held = Affordable(space, run, pin);
  const size_t ahead = held == run.size() ? kept.ahead.size() : 0;
  if (held + ahead == 0 || !CheckClaimTable(*space.tally, ahead).ok()) return;
  Claim claim{.space = space.id,
              .owner = space.tally,
              .name = kept.name,
              .rank = kept.rank,
              .ends = clock_.Now() + std::min(left, limits::kClaimTtlMax),
              .rests = held > 0 ? run[held - 1] : kNoBlock};
  if (ahead > 0) claim.ahead = kept.ahead;
  AddClaim(std::move(claim));
}

}  // namespace reprise::shard
