// A deadline that a jump of the wall clock does not move: absl::Now() is read once, when it is
// made.
//
// Thread safety: an immutable value.
#pragma once

#include <algorithm>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "proto/types/clock.h"

namespace reprise::lanes {

class MonotonicDeadline {
 public:
  explicit MonotonicDeadline(absl::Time deadline)
      : end_(MonotonicClock().Now() + (deadline - absl::Now())) {}
  static MonotonicDeadline After(absl::Duration timeout) {
    MonotonicDeadline deadline;
    deadline.end_ = MonotonicClock().Now() + timeout;
    return deadline;
  }
  static MonotonicDeadline Never() { return MonotonicDeadline(); }

  bool over() const { return left() <= absl::ZeroDuration(); }
  absl::Duration left() const { return end_ - MonotonicClock().Now(); }
  MonotonicDeadline OrAfter(absl::Duration timeout) const {
    MonotonicDeadline sooner = After(timeout);
    sooner.end_ = std::min(sooner.end_, end_);
    return sooner;
  }

 private:
  MonotonicDeadline() : end_(absl::InfiniteFuture()) {}

  absl::Time end_;  // on MonotonicClock()
};

}  // namespace reprise::lanes
