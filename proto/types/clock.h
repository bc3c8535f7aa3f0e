// Time as a seam: every deadline, lease and timeout reads a Clock, so that tests own time.
//
// Thread safety: Now() may be called from any thread.
#pragma once

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace reprise {

class Clock {
 public:
  virtual ~Clock() = default;
  // Never runs backwards, whatever the wall clock does. Only differences mean anything.
  virtual absl::Time Now() const = 0;
};

// The process-wide monotonic clock.
const Clock& MonotonicClock();

}  // namespace reprise
