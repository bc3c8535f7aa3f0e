// After a process that ended without saying so: what its journal said last, and what was written
// last, may not have reached the disk together. Each block that was taken over is read and checked
// before anybody gets it, in the background, those that were used last first.

#include "absl/time/clock.h"
#include "proto/types/limits.h"
#include "service/shard/shard_engine_impl.h"

namespace reprise::shard {

void ShardEngineImpl::Scrub() {
  absl::Time due = absl::Now();
  while (const std::optional<ScrubStep> step = BeginScrub(due)) {
    const auto found = pool_->Checksums({&step->slot, 1}, step->shape);
    FinishScrub(*step, found.ok() && found->front() == step->checksum);
    due += absl::Seconds(static_cast<double>(step->shape.block_bytes) /
                         static_cast<double>(limits::kScrubBytesPerSecond));
  }
}

// The next block that is still where it was, pinned, not before `due`; nullopt: none is left, or
// the engine ends.
std::optional<ShardEngineImpl::ScrubStep> ShardEngineImpl::BeginScrub(absl::Time due) {
  absl::MutexLock lock(&mu_);
  while (!stopping_ && !keep_cv_.WaitWithDeadline(&mu_, due)) {
  }
  while (!to_scrub_.empty() && !stopping_ && !pool_->lost(pool_->last())) {
    const BlockUse next = to_scrub_.front();
    BlockRecord& block = blocks_[next.id];
    if (block.generation != next.generation || block.state != BlockState::kWaiting) {
      to_scrub_.pop_front();
      continue;
    }
    ++block.pins;
    return ScrubStep{.id = next.id,
                     .slot = block.slot,
                     .shape = SpaceOf(block.space).shape,
                     .checksum = block.checksum};
  }
  return std::nullopt;
}

void ShardEngineImpl::FinishScrub(const ScrubStep& step, bool right) {
  Locked lock(this);
  to_scrub_.pop_front();
  --blocks_[step.id].pins;
  counters_.Add(Counter::kScrubbedBlocks);
  if (blocks_[step.id].state != BlockState::kWaiting) return FreeIfIdle(step.id);
  KeySpace& space = SpaceOf(blocks_[step.id].space);
  if (right) {
    waiting_.Prove(step.id);
    EnterIfReady(space, step.id);
    PublishAdopted(space);
  } else {
    counters_.Add(Counter::kQuarantinedBlocks);
    LetGo(step.id);
  }
}

}  // namespace reprise::shard
