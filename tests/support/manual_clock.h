// A clock that moves only when a test says so.
#pragma once

#include "absl/synchronization/mutex.h"
#include "proto/types/clock.h"

namespace reprise::testing {

class ManualClock final : public Clock {
 public:
  absl::Time Now() const override {
    absl::MutexLock lock(&mu_);
    return now_;
  }
  void Advance(absl::Duration by) {
    absl::MutexLock lock(&mu_);
    now_ += by;
  }

 private:
  mutable absl::Mutex mu_;
  absl::Time now_ ABSL_GUARDED_BY(mu_) = absl::UnixEpoch() + absl::Hours(1000);
};

}  // namespace reprise::testing
