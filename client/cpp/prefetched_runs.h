// Runs that were leased ahead of need, until somebody acquires them.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/cpp/run.h"
#include "proto/types/block_key.h"
#include "proto/types/clock.h"

namespace reprise::client {

class PrefetchedRuns {
 public:
  explicit PrefetchedRuns(const Clock* clock);  // nullptr: the monotonic clock

  // Keeps `run` for kPrefetchTtl; the oldest one goes when there are kPrefetchedRunsMax.
  void Put(std::shared_ptr<Run> run);
  // The run of exactly these keys, when it is there and still readable; else nullptr. It is given
  // once.
  std::shared_ptr<Run> Take(const Fingerprint& fingerprint, std::span<const BlockKey> keys,
                            uint32_t first_block);
  void Clear();

 private:
  struct Entry {
    std::shared_ptr<Run> run;
    absl::Time until;
  };
  const Clock& clock_;
  absl::Mutex mu_;
  std::deque<Entry> entries_ ABSL_GUARDED_BY(mu_);  // oldest first
};

}  // namespace reprise::client
