#include "service/shard/watch_queue.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/types/refusal.h"

namespace reprise::shard {

WatchQueue::WatchQueue(std::vector<BlockEvent> snapshot, size_t events_max)
    : events_max_(events_max), snapshot_(std::move(snapshot)) {}

bool WatchQueue::Push(BlockEvent event) {
  absl::MutexLock lock(&mu_);
  if (cut_off_) return false;
  if (events_.size() >= events_max_) {
    cut_off_ = true;
    return false;
  }
  events_.push_back(std::move(event));
  return true;
}

void WatchQueue::Notify() {
  absl::MutexLock lock(&notify_mu_);
  if (ready_) ready_();
}

absl::StatusOr<std::optional<BlockEvent>> WatchQueue::Next(absl::Time deadline) {
  absl::MutexLock lock(&mu_);
  // A timeout, so that a jump of the wall clock does not move the wait.
  const bool waiting = mu_.AwaitWithTimeout(
      absl::Condition(
          +[](WatchQueue* queue) ABSL_NO_THREAD_SAFETY_ANALYSIS { return queue->Waiting(); }, this),
      deadline - absl::Now());
  if (!waiting) return std::optional<BlockEvent>();
  if (snapshot_at_ < snapshot_.size()) {
    std::optional<BlockEvent> event = std::move(snapshot_[snapshot_at_++]);
    if (snapshot_at_ == snapshot_.size()) {
      snapshot_ = {};
      snapshot_at_ = 0;
    }
    return event;
  }
  if (!events_.empty()) {
    std::optional<BlockEvent> event = std::move(events_.front());
    events_.pop_front();
    return event;
  }
  return Refusal(absl::StatusCode::kResourceExhausted, "WATCHER_TOO_SLOW",
                 absl::StrCat("this watcher fell behind by ", events_max_,
                              " events (kWatchQueueEventsMax) and missed some: watch anew"));
}

void WatchQueue::NotifyWith(std::function<void()> ready) {
  absl::MutexLock notify_lock(&notify_mu_);
  ready_ = std::move(ready);
  bool waiting;
  {
    absl::MutexLock lock(&mu_);
    waiting = Waiting();
  }
  if (waiting && ready_) ready_();
}

void WatchQueue::StopNotifying() {
  absl::MutexLock lock(&notify_mu_);
  ready_ = nullptr;
}

}  // namespace reprise::shard
