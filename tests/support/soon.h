// Waiting for what is true soon, with a deadline for what never is.
//
// Thread safety: free functions; no shared state.
#pragma once

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace reprise::testing {

// Whether `condition` came true within `patience`. It is asked every few milliseconds.
template <typename Condition>
bool Soon(Condition condition, absl::Duration patience = absl::Seconds(20)) {
  const absl::Time deadline = absl::Now() + patience;
  absl::Mutex mu;
  absl::MutexLock lock(&mu);
  bool never = false;
  while (!condition()) {
    if (absl::Now() > deadline) return false;
    mu.AwaitWithTimeout(absl::Condition(&never), absl::Milliseconds(2));
  }
  return true;
}

}  // namespace reprise::testing
