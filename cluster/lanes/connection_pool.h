// The connections of one lane: calls borrow one each, a bounded number of calls at once, and give
// it back for the next.
//
// Invariants: at most `connections_max` are lent at a time, further calls wait; a connection that
// its peer has closed, or on which something arrived that nobody asked for, is not lent again; a
// peer that did not take a connection is left alone for `retry_after`. Thread safety: all methods
// may be called from any thread.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "cluster/lanes/lane_status.h"
#include "cluster/lanes/monotonic_deadline.h"
#include "proto/types/clock.h"

namespace reprise::lanes {

// Socket: movable, with Quiet(), true while it is connected and nothing has arrived.
template <typename Socket>
class ConnectionPool {
 public:
  struct Options {
    std::string lane;  // begins the sentences
    size_t connections_max = 1;
    absl::Duration retry_after;
    // A new connection that is ready for calls.
    std::function<absl::StatusOr<Socket>(MonotonicDeadline)> dial;
  };

  explicit ConnectionPool(Options options) : options_(std::move(options)) {}

  // DEADLINE_EXCEEDED; UNAVAILABLE (LANE_DOWN) while the peer is left alone; else what dialling
  // says. OK: GiveBack follows.
  absl::StatusOr<Socket> Borrow(MonotonicDeadline deadline) {
    std::optional<absl::StatusOr<Socket>> socket;
    {
      absl::MutexLock lock(&mu_);
      if (!mu_.AwaitWithTimeout(absl::Condition(this, &ConnectionPool::MayBorrow),
                                deadline.left())) {
        return absl::DeadlineExceededError(absl::StrCat(options_.lane, ": the deadline is over"));
      }
      socket = Lend();
    }
    return socket.has_value() ? *std::move(socket) : Dial(deadline);
  }

  // The same without waiting for others: nullopt when as many are lent as may be.
  std::optional<absl::StatusOr<Socket>> BorrowNow(MonotonicDeadline deadline) {
    std::optional<absl::StatusOr<Socket>> socket;
    {
      absl::MutexLock lock(&mu_);
      if (!MayBorrow()) return std::nullopt;
      socket = Lend();
    }
    return socket.has_value() ? *std::move(socket) : Dial(deadline);
  }

  // One that was made elsewhere, for the next call.
  void Add(Socket socket) {
    absl::MutexLock lock(&mu_);
    idle_.push_back(std::move(socket));
  }

  // nullptr: the connection is good for nothing any more.
  void GiveBack(Socket* healthy) {
    absl::MutexLock lock(&mu_);
    --borrowed_;
    if (healthy != nullptr) idle_.push_back(std::move(*healthy));
  }

 private:
  // Counts the borrower and takes an idle connection for it in one go, so that nobody else is let
  // in by the same one. nullopt: it has to dial. No borrower when it is not OK.
  std::optional<absl::StatusOr<Socket>> Lend() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    ++borrowed_;
    while (!idle_.empty()) {
      Socket socket = std::move(idle_.back());
      idle_.pop_back();
      // One that the shard has closed meanwhile is no reason to give up the lane.
      if (socket.Quiet()) return absl::StatusOr<Socket>(std::move(socket));
    }
    if (MonotonicClock().Now() >= retry_at_) return std::nullopt;
    --borrowed_;
    return absl::StatusOr<Socket>(
        LaneDown(absl::StrCat(options_.lane, ": the shard's socket did not answer lately")));
  }

  // For a borrower that is counted; no more when this fails.
  absl::StatusOr<Socket> Dial(MonotonicDeadline deadline) {
    absl::StatusOr<Socket> socket = options_.dial(deadline);
    if (socket.ok()) return socket;
    absl::MutexLock lock(&mu_);
    --borrowed_;
    if (IsLaneDown(socket.status())) retry_at_ = MonotonicClock().Now() + options_.retry_after;
    return socket.status();
  }

  bool MayBorrow() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return !idle_.empty() || borrowed_ < options_.connections_max;
  }

  const Options options_;
  absl::Mutex mu_;
  size_t borrowed_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<Socket> idle_ ABSL_GUARDED_BY(mu_);
  absl::Time retry_at_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
};

}  // namespace reprise::lanes
