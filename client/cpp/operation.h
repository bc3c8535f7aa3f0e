// A call under way: polled, waited for, cancelled; its result is taken once.
//
// Invariants: an operation becomes done exactly once; after it is done no memory of the caller's is
// touched. Thread safety: all methods may be called from any thread, Take from one thread once.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace reprise::client {

// What a call knows about its limits. Copied freely.
struct CallContext {
  absl::Time deadline;
  std::shared_ptr<const std::atomic<bool>> cancelled;

  // CANCELLED or DEADLINE_EXCEEDED when the call is to end now.
  absl::Status Check() const;
};

template <typename Result>
class Operation {
 public:
  Operation() = default;

  // Runs nothing by itself. `fail` makes the result of an operation that never ran.
  static Operation Make(std::function<Result(const absl::Status&)> fail) {
    Operation operation;
    operation.state_ = std::make_shared<State>();
    operation.state_->fail = std::move(fail);
    return operation;
  }

  bool Done() const {
    absl::MutexLock lock(&state_->mu);
    return state_->phase == Phase::kDone;
  }
  // True when it is done by then.
  bool Wait(absl::Duration timeout) const {
    absl::MutexLock lock(&state_->mu);
    return state_->mu.AwaitWithTimeout(absl::Condition(state_.get(), &State::IsDone), timeout);
  }
  // Asks it to end early, with CANCELLED: at once while it is queued, at its next block while it
  // runs, and by its deadline in every case.
  void Cancel() {
    state_->cancelled->store(true);
    Drop(absl::CancelledError("the operation was cancelled"));
  }
  // REQUIRES: Done(), and not taken before.
  Result Take() {
    absl::MutexLock lock(&state_->mu);
    return std::move(state_->result);
  }

  // ---- For whoever runs it
  // Runs `body` and is done, unless it was dropped before.
  void Run(const std::function<Result()>& body) {
    {
      absl::MutexLock lock(&state_->mu);
      if (state_->phase != Phase::kQueued) return;
      state_->phase = Phase::kRunning;
    }
    Result result = body();
    absl::MutexLock lock(&state_->mu);
    state_->result = std::move(result);
    state_->phase = Phase::kDone;
  }
  // Done with a failure, unless it runs or is done already.
  void Drop(const absl::Status& status) {
    absl::MutexLock lock(&state_->mu);
    if (state_->phase != Phase::kQueued) return;
    state_->result = state_->fail(status);
    state_->phase = Phase::kDone;
  }
  std::shared_ptr<const std::atomic<bool>> cancelled() const { return state_->cancelled; }

 private:
  enum class Phase : uint8_t { kQueued, kRunning, kDone };
  struct State {
    mutable absl::Mutex mu;
    Phase phase ABSL_GUARDED_BY(mu) = Phase::kQueued;
    Result result ABSL_GUARDED_BY(mu){};
    std::function<Result(const absl::Status&)> fail;
    std::shared_ptr<std::atomic<bool>> cancelled = std::make_shared<std::atomic<bool>>(false);
    bool IsDone() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) { return phase == Phase::kDone; }
  };
  std::shared_ptr<State> state_;
};

}  // namespace reprise::client
