// A disk that is kept over restarts: its journal follows what is stored there, a moment late, and
// is written anew at the start, at the end, and when it is mostly of the past. A thread of its own
// does so; what it writes is looked up under the lock, slot by slot, when it is written, so that
// changes cost a note and no queue can grow.

#include <pthread.h>

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "proto/types/limits.h"
#include "proto/types/status_macros.h"
#include "service/shard/shard_engine_impl.h"

namespace reprise::shard {

absl::Status ShardEngineImpl::StartKeeping() {
  REPRISE_CHECK(kept_ != nullptr);
  Restore(kept_->TakeFound());
  // What the last process wrote says that it ended in order. That is over.
  REPRISE_RETURN_IF_ERROR(RewriteJournal());
  keeper_ = std::thread([this] { KeepLoop(); });
  absl::MutexLock lock(&mu_);
  if (!to_scrub_.empty()) scrubber_ = std::thread([this] { ScrubLoop(); });
  return absl::OkStatus();
}

// What is stored at `slot` is not what it was.
void ShardEngineImpl::NoteKept(SlotRef slot) {
  if (kept_ == nullptr || pool_->LevelOf(slot) != pool_->last()) return;
  if (!kept_use_.why_not_kept.empty()) return;
  if (unsaid_.empty()) keep_cv_.SignalAll();
  unsaid_.insert(slot);
}

void ShardEngineImpl::KeepLoop() {
  ::pthread_setname_np(::pthread_self(), "reprise-keep");
  while (true) {
    {
      absl::MutexLock lock(&mu_);
      while (unsaid_.empty() && !stopping_) keep_cv_.Wait(&mu_);
      const absl::Time due = absl::Now() + limits::kJournalInterval;
      while (!stopping_ && !keep_cv_.WaitWithDeadline(&mu_, due)) {
      }
      if (stopping_) return;
    }
    absl::Status kept = SayUnsaid();
    if (kept.ok() && JournalIsOfThePast()) kept = RewriteJournal();
    if (!kept.ok() || pool_->lost(pool_->last())) return StopKeeping(kept);
  }
}

// Nothing that the journal says may be true any more.
void ShardEngineImpl::StopKeeping(const absl::Status& why) {
  journal_ = nullptr;
  kept_->Forget();
  absl::MutexLock lock(&mu_);
  kept_use_.why_not_kept =
      why.ok() ? "the disk is lost" : absl::StrCat("its journal failed: ", why.message());
}

absl::Status ShardEngineImpl::SayUnsaid() {
  std::vector<SlotRef> unsaid;
  {
    absl::MutexLock lock(&mu_);
    unsaid.assign(unsaid_.begin(), unsaid_.end());
    unsaid_.clear();
  }
  for (size_t at = 0; at < unsaid.size();) {
    KeptBatch batch;
    {
      absl::MutexLock lock(&mu_);
      const size_t end = std::min(unsaid.size(), at + limits::kJournalBatchBlocks);
      for (; at < end; ++at) Say(unsaid[at], batch);
    }
    REPRISE_RETURN_IF_ERROR(journal_->Append(batch));
  }
  return absl::OkStatus();
}

// What is at a slot of the disk now.
void ShardEngineImpl::Say(SlotRef slot, KeptBatch& batch) {
  const std::vector<BlockId>& extent = slot_blocks_[slot.extent];
  const BlockId id = slot.index < extent.size() ? extent[slot.index] : kNoBlock;
  const bool stored =
      id != kNoBlock && blocks_[id].slot == slot &&
      (blocks_[id].state == BlockState::kCommitted || blocks_[id].state == BlockState::kWaiting);
  stored ? SayBlock(id, batch) : batch.gone.push_back(pool_->InPool(slot));
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

// What is on the disk, what was used longest ago first, in a new journal. What changes meanwhile is
// said after it.
absl::Status ShardEngineImpl::RewriteJournal() {
  REPRISE_ASSIGN_OR_RETURN(std::unique_ptr<JournalWriter> fresh, kept_->NewJournal());
  journal_ = nullptr;
  std::vector<std::pair<uint64_t, BlockUse>> by_use;
  {
    absl::MutexLock lock(&mu_);
    said_spaces_.clear();
    unsaid_.clear();
    for (BlockId id = 0; id < blocks_.size(); ++id) {
      if (!IsKept(id)) continue;
      const bool stored = blocks_[id].state == BlockState::kCommitted;
      by_use.emplace_back(stored ? order_.last_use(id) : 0,
                          BlockUse{.id = id, .generation = blocks_[id].generation});
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
    REPRISE_RETURN_IF_ERROR(fresh->Append(batch));
  }
  KeptBatch claims;
  {
    absl::MutexLock lock(&mu_);
    SayClaims(claims);
  }
  REPRISE_RETURN_IF_ERROR(fresh->Append(claims));
  journal_ = std::move(fresh);
  REPRISE_RETURN_IF_ERROR(SayUnsaid());
  rewritten_bytes_ = journal_->bytes();
  return journal_->Publish();
}

// Whether the next process is to find it.
bool ShardEngineImpl::IsKept(BlockId id) const {
  const BlockRecord& block = blocks_[id];
  const bool stored = block.state == BlockState::kCommitted || block.state == BlockState::kWaiting;
  return stored && pool_->LevelOf(block.slot) == pool_->last();
}

// At the end, when nobody else has the engine any more.
void ShardEngineImpl::CloseJournal() {
  if (journal_ == nullptr) return;
  absl::Status closed =
      pool_->lost(pool_->last()) ? absl::InternalError("the disk is lost") : RewriteJournal();
  if (closed.ok()) closed = pool_->Sync(pool_->last());
  if (closed.ok()) closed = journal_->Append({.closed = true});
  if (closed.ok()) closed = journal_->Sync();
  if (!closed.ok()) StopKeeping(closed);
}

}  // namespace reprise::shard
