// One watcher's bounded queue between the engine, which pushes under its lock, and the watcher,
// which waits.
//
// Invariants: events come out in the order in which they went in, the snapshot first; the snapshot
// does not count against the bound. Thread safety: all methods may be called from any thread. Push
// never blocks and calls nobody back.
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "service/shard/shard_engine.h"

namespace reprise::shard {

class WatchQueue {
 public:
  WatchQueue(std::vector<BlockEvent> snapshot, size_t events_max);

  // False when the queue was full: the watcher is cut off and sees the error once it has taken what
  // came before.
  bool Push(BlockEvent event);
  // Tells the watcher of what was pushed. The caller holds no lock.
  void Notify();

  absl::StatusOr<std::optional<BlockEvent>> Next(absl::Time deadline);
  void NotifyWith(std::function<void()> ready);
  // Returns when no callback runs and none will run any more. Not to be called from the callback.
  void StopNotifying();

 private:
  bool Waiting() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return snapshot_at_ < snapshot_.size() || !events_.empty() || cut_off_;
  }

  const size_t events_max_;
  absl::Mutex notify_mu_ ABSL_ACQUIRED_BEFORE(mu_);
  std::function<void()> ready_ ABSL_GUARDED_BY(notify_mu_);
  absl::Mutex mu_;
  std::vector<BlockEvent> snapshot_ ABSL_GUARDED_BY(mu_);
  size_t snapshot_at_ ABSL_GUARDED_BY(mu_) = 0;
  std::deque<BlockEvent> events_ ABSL_GUARDED_BY(mu_);
  bool cut_off_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace reprise::shard
