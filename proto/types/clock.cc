#include "proto/types/clock.h"

#include <chrono>

namespace reprise {
namespace {

class SteadyClock final : public Clock {
 public:
  absl::Time Now() const override {
    return absl::UnixEpoch() +
           absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
  }
};

}  // namespace

const Clock& MonotonicClock() {
  static const SteadyClock clock;
  return clock;
}

}  // namespace reprise
