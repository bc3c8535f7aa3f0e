// What the last process left on a kept disk: its blocks in their old slots, under their key spaces,
// and its claims. All blocks wait at first. Where that process ended in order those whose chains
// are whole are stored at once; otherwise its journal may be behind what is there, another tenant's
// bytes not excluded, and nobody gets a block before it was read and checked
// (shard_engine_scrub.cc).

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
  KeptContents& contents = found.contents;
  kept_use_.clean = contents.closed;
  kept_use_.why_empty = std::move(found.why_empty);
  RestoredSpaces spaces;
  for (const KeptSpace& space : contents.spaces) spaces[space.number] = {.kept = &space};
  found_blocks_ = contents.blocks.size();
  order_.BeginAfter(found_blocks_);  // what comes back keeps its place before all that is new
  // From what was used last: what has no room any more is what was used longest ago.
  std::vector<BlockId> waiting;
  for (uint64_t age = 0; age < found_blocks_; ++age) {
    KeptBlock& kept = contents.blocks[found_blocks_ - 1 - age];
    KeySpace* const space = SpaceFor(kept.space, spaces);
    const BlockId id = space == nullptr ? kNoBlock : RestoreBlock(*space, kept);
    if (id == kNoBlock) continue;
    ++kept_use_.restored_blocks;
    if (contents.closed && EnterRestored(*space, kept, id, found_blocks_ - age)) continue;
    waiting_.Add({.block = id,
                  .key = {space->id, kept.key},
                  .parent = kept.parent,
                  .age = age,
                  .proved = contents.closed});
    waiting.push_back(id);
  }
  counters_.Add(Counter::kRestoredBlocks, kept_use_.restored_blocks);
  if (!contents.closed) {
    for (const BlockId id : waiting) {
      to_scrub_.push_back({.id = id, .generation = blocks_[id].generation});
    }
    return;
  }
  for (const BlockId id : waiting) {
    if (waiting_.Contains(id)) EnterIfReady(SpaceOf(blocks_[id].space), id);
  }
  adopted_.clear();  // chains that are whole, of which nobody heard yet
  for (const KeptClaim& claim : contents.claims) {
    KeySpace* const space = SpaceFor(claim.space, spaces);
    if (space != nullptr) RestoreClaim(*space, claim);
  }
}

// Found, or added, when something is about to be put there: a key space with nothing in it may be
// dropped for another one. nullptr when it cannot be of use to this version, or this shard.
KeySpace* ShardEngineImpl::SpaceFor(uint32_t number, RestoredSpaces& spaces) {
  const auto it = spaces.find(number);
  if (it == spaces.end() || it->second.useless) return nullptr;
  RestoredSpace& space = it->second;
  const auto known = spaces_.find(space.id);
  if (known != spaces_.end()) return known->second.get();
  space.id = RestoreSpace(*space.kept);
  space.useless = !space.id;
  return space.useless ? nullptr : &SpaceOf(space.id);
}

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

// Stores it at once where what it hangs from is: the way of nearly all, whose parents were used
// after them. False when it is to wait.
bool ShardEngineImpl::EnterRestored(KeySpace& space, const KeptBlock& kept, BlockId id,
                                    uint64_t last_use) {
  BlockId parent = kNoBlock;
  if (kept.parent.has_value()) {
    const std::optional<IndexEntry> entry = index_.Find(SpaceKey{space.id, *kept.parent});
    if (!entry.has_value() || blocks_[entry->block].depth + 1 != kept.depth) return false;
    parent = entry->block;
  }
  EnterFound(space, id, parent, last_use);
  return true;
}

// In its slot, and nobody's to have yet. kNoBlock when its place, or its tenant's quota, does not
// allow for it any more.
BlockId ShardEngineImpl::RestoreBlock(KeySpace& space, KeptBlock& kept) {
  const SpaceKey key{space.id, kept.key};
  if (kept.parent.has_value() != (kept.depth > 0) || waiting_.Find(key).has_value() ||
      index_.Find(key).has_value() || !WithinQuota(space)) {
    return kNoBlock;
  }
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
  if (kept.token_ids.size() != space.spec.block_tokens) kept.token_ids.clear();  // not known, then
  block.chain =
      std::make_shared<const ChainInfo>(ChainInfo{.session_id = std::move(kept.session_id),
                                                  .token_ids = std::move(kept.token_ids),
                                                  .first_block = kept.depth});
  SetSlotBlock(*slot, id);
  SlotTaken(space);
  ++space.held_back;
  return id;
}

// Where the block that it rested on is stored again: what is affordable of its prefix is kept
// again, and the rest waited for unless that is less than it was.
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
