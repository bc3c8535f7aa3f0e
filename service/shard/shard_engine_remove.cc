// Leaving: what takes a block out of the index, and when its slot is free again.

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "proto/types/limits.h"
#include "proto/types/status_macros.h"
#include "service/shard/shard_engine_impl.h"

namespace reprise::shard {

// Takes a committed, childless block out of sight. Its slot is freed with its last lease and pin,
// or held back when `next` is kQuarantined.
void ShardEngineImpl::Drop(KeySpace& space, BlockId id, Tombstone tombstone, BlockState next) {
  BlockRecord& block = blocks_[id];
  const SpaceKey key{space.id, block.key};
  REPRISE_CHECK(block.state == BlockState::kCommitted && index_.Erase(key));
  const BlockId parent = block.parent;
  ClaimsFallBack(id);
  Departs(id);
  NoteKept(block.slot);
  blocks_.Unlink(id, space.roots);
  if (parent != kNoBlock) JudgeAsEnd(parent);
  IsEviction(tombstone.cause) ? order_.Evict(id) : order_.Forget(id);
  tombstones_.Add(key, std::move(tombstone));
  --space.blocks;
  ++space.held_back;
  block.state = next;
  if (!watchers_.empty()) {
    if (removed_space_ != space.id || removed_keys_.size() >= limits::kEventKeysMax)
      PublishRemoved();
    removed_space_ = space.id;
    removed_keys_.push_back(key.key);
  }
  FreeIfIdle(id);
}

void ShardEngineImpl::FreeIfIdle(BlockId id) {
  BlockRecord& block = blocks_[id];
  if (block.state != BlockState::kHidden || block.leases > 0 || block.pins > 0) return;
  --SpaceOf(block.space).held_back;
  SlotGivenBack(SpaceOf(block.space));
  SetSlotBlock(block.slot, kNoBlock);
  pool_->Free(block.slot);
  blocks_.Drop(id);
}

void ShardEngineImpl::SetSlotBlock(SlotRef slot, BlockId id) {
  if (slot_blocks_.size() <= slot.extent) slot_blocks_.resize(pool_->extents());
  std::vector<BlockId>& blocks = slot_blocks_[slot.extent];
  if (blocks.size() <= slot.index) blocks.resize(slot.index + 1, kNoBlock);
  blocks[slot.index] = id;
}

// The blocks of `keys` and all that is stored beneath them, each once, children before parents.
std::vector<BlockId> ShardEngineImpl::AllBelow(const KeySpace& space,
                                               std::span<const BlockKey> keys) const {
  std::vector<BlockId> all;
  absl::flat_hash_set<BlockId> seen;
  for (const BlockKey& key : keys) {
    const std::optional<IndexEntry> entry = index_.Find(SpaceKey{space.id, key});
    if (!entry.has_value()) continue;
    const BlockId top = entry->block;
    for (BlockId id = top; id != kNoBlock;) {
      const bool is_new = seen.insert(id).second;
      if (is_new) all.push_back(id);
      id = blocks_.NextBelow(top, id, !is_new);
    }
  }
  std::sort(all.begin(), all.end(), [this](BlockId a, BlockId b) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return blocks_[a].depth > blocks_[b].depth;
  });
  return all;
}

absl::StatusOr<RemoveResult> ShardEngineImpl::Remove(AttachmentId attachment, SpecHandle spec,
                                                     std::span<const BlockKey> keys) {
  REPRISE_ASSIGN_OR_RETURN(const KeySpaceId space_id, attachments_.Resolve(attachment, spec));
  REPRISE_ASSIGN_OR_RETURN(const AttachmentTable::Entry who, attachments_.Get(attachment));
  RemoveResult result;
  uint64_t note = 0;
  REPRISE_RETURN_IF_ERROR(RemoveBelow({attachment, space_id, who.client_name}, keys, result, note));
  // What is gone from the disk stays gone, also when this process is killed now.
  REPRISE_RETURN_IF_ERROR(AwaitJournal(note));
  return result;
}

// `note`: of the last block that was on a disk that is kept; 0: none was.
absl::Status ShardEngineImpl::RemoveBelow(const Remover& by, std::span<const BlockKey> keys,
                                          RemoveResult& result, uint64_t& note) {
  Locked lock(this);
  Settle(clock_.Now());
  REPRISE_RETURN_IF_ERROR(HoldingsOf(by.attachment).status());
  KeySpace& space = SpaceOf(by.space);
  const uint64_t noted_before = notes_;
  const Tombstone tombstone{.cause = DropCause::kRemoved,
                            .unix_ms = absl::ToUnixMillis(absl::Now()),
                            .detail = by.client_name};
  std::vector<BlockKey> gone(keys.begin(), keys.end());
  for (BlockId id : AllBelow(space, keys)) {
    // A leased block stays, and so does what it hangs from.
    if (blocks_[id].leases > 0 || blocks_[id].children > 0) {
      ++result.leased;
      continue;
    }
    gone.push_back(blocks_[id].key);
    Drop(space, id, tombstone, BlockState::kHidden);
    ++result.removed;
  }
  result.removed += LetGoBelow(space, std::move(gone));
  note = notes_ > noted_before ? notes_ : 0;
  counters_.Add(Counter::kRemovedBlocks, result.removed);
  return absl::OkStatus();
}

void ShardEngineImpl::Quarantine(const Tenant& tenant, const Fingerprint& fingerprint,
                                 const BlockKey& key, absl::string_view cause) {
  Locked lock(this);
  KeySpace* const space = FindSpace(tenant, fingerprint);
  if (space == nullptr) return;
  const std::optional<IndexEntry> entry = index_.Find(SpaceKey{space->id, key});
  if (entry.has_value()) QuarantineBlock(*space, entry->block, cause);
}

void ShardEngineImpl::QuarantineBlock(KeySpace& space, BlockId top, absl::string_view cause) {
  Tombstone tombstone{.cause = DropCause::kBeneathQuarantined,
                      .unix_ms = absl::ToUnixMillis(absl::Now()),
                      .detail = std::string(cause)};
  while (blocks_[top].children > 0) {
    Drop(space, blocks_.FirstLeafBelow(top), tombstone, BlockState::kHidden);
  }
  tombstone.cause = DropCause::kQuarantined;
  Drop(space, top, tombstone, BlockState::kQuarantined);
  quarantined_.push_back(top);
  counters_.Add(Counter::kQuarantinedBlocks);
  if (quarantined_.size() <= limits::kQuarantinedSlotsMax) return;
  blocks_[quarantined_.front()].state = BlockState::kHidden;
  FreeIfIdle(quarantined_.front());
  quarantined_.pop_front();
}

}  // namespace reprise::shard
