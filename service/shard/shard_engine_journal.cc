// What a kept disk's journal says: of slots that were noted since it was asked last, and of all
// that is there. It is looked up under the lock, a batch at a time, and written outside it.

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "proto/types/limits.h"
#include "proto/types/status_macros.h"
#include "service/shard/shard_engine_impl.h"

namespace reprise::shard {

// Slots that were noted, what was used longest ago first, and the number of the last note.
ShardEngineImpl::Unsaid ShardEngineImpl::TakeUnsaid() {
  absl::MutexLock lock(&mu_);
  std::vector<std::pair<uint64_t, SlotRef>> by_use;
  by_use.reserve(unsaid_.size());
  for (const SlotRef slot : unsaid_) {
    const BlockId id = KeptAt(slot);
    by_use.emplace_back(id == kNoBlock ? 0 : LastUseOf(id), slot);
  }
  unsaid_.clear();
  std::sort(by_use.begin(), by_use.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  Unsaid unsaid{.slots = {}, .last_note = notes_};
  for (const auto& [use, slot] : by_use) unsaid.slots.push_back(slot);
  return unsaid;
}

absl::Status ShardEngineImpl::SaySlots(const std::vector<SlotRef>& slots, JournalWriter& journal) {
  for (size_t at = 0; at < slots.size();) {
    KeptBatch batch;
    {
      absl::MutexLock lock(&mu_);
      const size_t end = std::min(slots.size(), at + limits::kJournalBatchBlocks);
      for (; at < end; ++at) Say(slots[at], batch);
    }
    REPRISE_RETURN_IF_ERROR(journal.Append(batch));
  }
  return absl::OkStatus();
}

// What was noted so far. `sync`: whoever waits for it is told when it is on the disk.
absl::Status ShardEngineImpl::SayUnsaid(bool sync) {
  const Unsaid unsaid = TakeUnsaid();
  REPRISE_RETURN_IF_ERROR(SaySlots(unsaid.slots, *journal_));
  if (!sync) return absl::OkStatus();
  REPRISE_RETURN_IF_ERROR(journal_->Sync());
  absl::MutexLock lock(&mu_);
  said_notes_ = unsaid.last_note;
  said_cv_.SignalAll();
  return absl::OkStatus();
}

// What is at a slot of the disk now, for the next process to find; kNoBlock: nothing.
BlockId ShardEngineImpl::KeptAt(SlotRef slot) const {
  const std::vector<BlockId>& extent = slot_blocks_[slot.extent];
  const BlockId id = slot.index < extent.size() ? extent[slot.index] : kNoBlock;
  return id != kNoBlock && blocks_[id].slot == slot && IsKept(id) ? id : kNoBlock;
}

void ShardEngineImpl::Say(SlotRef slot, KeptBatch& batch) {
  const BlockId id = KeptAt(slot);
  id == kNoBlock ? batch.gone.push_back(pool_->InPool(slot)) : SayBlock(id, batch);
}

void ShardEngineImpl::SayBlock(BlockId id, KeptBatch& batch) {
  const BlockRecord& block = blocks_[id];
  SaySpace(SpaceOf(block.space), batch);
  KeptBlock kept{.space = block.space.value,
                 .slot = pool_->InPool(block.slot),
                 .key = block.key,
                 .checksum = block.checksum,
                 .depth = block.depth,
                 .token_position = block.token_position,
                 .session_id = block.chain->session_id};
  if (block.state == BlockState::kWaiting) {
    kept.parent = waiting_.ParentOf(id);
  } else if (block.parent != kNoBlock) {
    kept.parent = blocks_[block.parent].key;
  }
  if (!block.chain->token_ids.empty()) {
    const uint32_t block_tokens = SpaceOf(block.space).spec.block_tokens;
    const auto from = block.chain->token_ids.begin() +
                      size_t{block.depth - block.chain->first_block} * block_tokens;
    kept.token_ids.assign(from, from + block_tokens);
  }
  batch.blocks.push_back(std::move(kept));
}

void ShardEngineImpl::SaySpace(const KeySpace& space, KeptBatch& batch) {
  if (!said_spaces_.insert(space.id).second) return;
  batch.spaces.push_back({.number = space.id.value,
                          .tenant = space.tenant,
                          .fingerprint = space.fingerprint,
                          .spec = space.spec,
                          .shape = space.shape});
}

void ShardEngineImpl::SayClaims(KeptBatch& batch) {
  for (const ClaimId id : claims_.All()) {
    const Claim& claim = claims_[id];
    SaySpace(SpaceOf(claim.space), batch);
    KeptClaim kept{.space = claim.space.value,
                   .name = claim.name,
                   .rank = claim.rank,
                   .ends = absl::Now() + (claim.ends - clock_.Now()),
                   .ahead = claim.ahead};
    if (claim.rests != kNoBlock) kept.rests = blocks_[claim.rests].key;
    batch.claims.push_back(std::move(kept));
  }
}

bool ShardEngineImpl::JournalIsOfThePast() const {
  return journal_->bytes() > std::max(limits::kJournalRewriteBytesMin,
                                      limits::kJournalRewriteFactor * rewritten_bytes_);
}

// What is on the disk, what was used longest ago first, in a new journal, which takes the place of
// the one before. What changes meanwhile is said after it. When that fails the one before goes on,
// or there is none any more.
absl::Status ShardEngineImpl::RewriteJournal(bool ending) {
  REPRISE_ASSIGN_OR_RETURN(std::unique_ptr<JournalWriter> fresh, kept_->NewJournal());
  absl::flat_hash_set<KeySpaceId> said_before;
  {
    absl::MutexLock lock(&mu_);
    said_before = std::exchange(said_spaces_, {});
  }
  const Unsaid before = TakeUnsaid();
  Unsaid meanwhile;
  absl::Status written = SayAll(*fresh, ending);
  if (written.ok()) {
    meanwhile = TakeUnsaid();
    written = SaySlots(meanwhile.slots, *fresh);
  }
  if (written.ok()) {
    written = fresh->Publish();
    // Which of the two has the name is not known.
    if (!written.ok()) journal_ = nullptr;
  }
  if (!written.ok()) {
    absl::MutexLock lock(&mu_);
    said_spaces_ = std::move(said_before);
    unsaid_.insert(before.slots.begin(), before.slots.end());
    unsaid_.insert(meanwhile.slots.begin(), meanwhile.slots.end());
    return written;
  }
  rewritten_bytes_ = fresh->bytes();
  journal_ = std::move(fresh);
  return absl::OkStatus();
}

absl::Status ShardEngineImpl::SayAll(JournalWriter& journal, bool ending) {
  std::vector<std::pair<uint64_t, BlockUse>> by_use;
  {
    absl::MutexLock lock(&mu_);
    for (BlockId id = 0; id < blocks_.size(); ++id) {
      if (!IsKept(id)) continue;
      by_use.emplace_back(LastUseOf(id), BlockUse{.id = id, .generation = blocks_[id].generation});
    }
  }
  std::sort(by_use.begin(), by_use.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  for (size_t at = 0; at < by_use.size();) {
    KeptBatch batch;
    {
      absl::MutexLock lock(&mu_);
      const size_t end = std::min(by_use.size(), at + limits::kJournalBatchBlocks);
      for (; at < end; ++at) {
        const BlockUse& use = by_use[at].second;
        if (blocks_[use.id].generation == use.generation && IsKept(use.id)) SayBlock(use.id, batch);
      }
    }
    REPRISE_RETURN_IF_ERROR(journal.Append(batch));
  }
  if (!ending) return absl::OkStatus();
  KeptBatch claims;
  {
    absl::MutexLock lock(&mu_);
    SayClaims(claims);
  }
  return journal.Append(claims);
}

uint64_t ShardEngineImpl::LastUseOf(BlockId id) const {
  return blocks_[id].state == BlockState::kWaiting ? LastUseOfWaiting(id) : order_.last_use(id);
}

// Whether the next process is to find it.
bool ShardEngineImpl::IsKept(BlockId id) const {
  const BlockRecord& block = blocks_[id];
  const bool stored = block.state == BlockState::kCommitted || block.state == BlockState::kWaiting;
  return stored && pool_->LevelOf(block.slot) == pool_->last();
}

}  // namespace reprise::shard
