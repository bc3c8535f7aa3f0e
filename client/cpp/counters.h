// What this client did, counted by source: the numbers behind its stats.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "proto/types/ids.h"

namespace reprise::client {

inline constexpr size_t kTiers = 4;  // indexes: Tier; 0 is none

struct Counters {
  std::atomic<uint64_t> acquires{0};
  std::atomic<uint64_t> blocks_asked{0};
  std::atomic<uint64_t> blocks_found{0};
  std::atomic<uint64_t> fetches{0};
  std::atomic<uint64_t> blocks_fetched{0};
  std::atomic<uint64_t> bytes_fetched{0};
  std::atomic<uint64_t> blocks_corrupt{0};
  std::atomic<uint64_t> blocks_rescued{0};  // read from another shard after the first one failed
  std::atomic<uint64_t> stores{0};
  std::atomic<uint64_t> blocks_stored{0};
  std::atomic<uint64_t> blocks_present{0};
  std::atomic<uint64_t> blocks_refused{0};
  std::atomic<uint64_t> bytes_stored{0};
  std::atomic<uint64_t> pulls{0};  // times that a shard was asked to bring blocks from another
  std::atomic<uint64_t> prefetches{0};
  std::atomic<uint64_t> prefetch_hits{0};
  std::atomic<uint64_t> hints{0};
  std::atomic<uint64_t> calls_failed{0};
  std::atomic<uint64_t> calls_late{0};  // of those: at their deadline
  std::array<std::atomic<uint64_t>, kLaneKinds> blocks_by_lane{};
  std::array<std::atomic<uint64_t>, kTiers> blocks_by_tier{};

  void CountFromShard(const std::string& shard_id, uint64_t blocks) {
    absl::MutexLock lock(&mu);
    by_shard[shard_id] += blocks;
  }
  absl::Mutex mu;
  std::map<std::string, uint64_t> by_shard ABSL_GUARDED_BY(mu);
};

}  // namespace reprise::client
