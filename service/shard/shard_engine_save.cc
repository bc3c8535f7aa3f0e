// Before a stop: what is in memory moves to the disk that is kept, by the way that blocks take when
// memory is short, several threads at a time.

#include <thread>

#include "absl/time/clock.h"
#include "proto/types/limits.h"
#include "service/shard/shard_engine_impl.h"

namespace reprise::shard {

SaveResult ShardEngineImpl::Save(absl::Time deadline) {
  const uint64_t dropped_before = counters_.Get(Counter::kEvictedWatermarkBlocks);
  if (kept_ != nullptr && !pool_->lost(pool_->last())) {
    // The lowest memory first, so that what comes down from above finds room there.
    for (bool moved = true; moved;) {
      moved = false;
      for (Level level = pool_->last(); level > 0; --level) {
        moved = DemoteAll(level - 1, deadline) || moved;
      }
    }
  }
  return {.in_memory = BlocksInMemory(),
          .dropped = counters_.Get(Counter::kEvictedWatermarkBlocks) - dropped_before};
}

// What can be; whether anything was.
bool ShardEngineImpl::DemoteAll(Level level, absl::Time deadline) {
  std::atomic<bool> any = false;
  std::vector<std::thread> threads;
  for (int i = 0; i < limits::kSaveThreads; ++i) {
    threads.emplace_back([&] {
      while (absl::Now() < deadline &&
             Demote({.level = level, .blocks_max = limits::kDemoteBatchBlocks}) > 0) {
        any = true;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return any && absl::Now() < deadline;
}

uint64_t ShardEngineImpl::BlocksInMemory() const {
  absl::MutexLock lock(&mu_);
  uint64_t blocks = 0;
  for (const auto& [id, space] : spaces_) {
    blocks += space->blocks;
    if (kept_ != nullptr) blocks -= order_.tracked(GroupOf(id, pool_->last()));
  }
  return blocks;
}

}  // namespace reprise::shard
