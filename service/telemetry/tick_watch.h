// Whether a server's upkeep still runs: it takes every lock that calls take, so one that stands
// still for long is stuck on one of them.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <atomic>
#include <cstdint>

#include "proto/types/clock.h"
#include "service/telemetry/status_pages.h"

namespace reprise::telemetry {

class TickWatch {
 public:
  // REQUIRES: `clock` outlives this.
  explicit TickWatch(const Clock& clock = MonotonicClock()) : clock_(clock) { Ticked(); }

  void Ticked();
  // There will be no more: a server that stops may take its time over it.
  void Stop() { stopped_.store(true, std::memory_order_relaxed); }

  // Not well when the last tick was limits::kLivenessSilenceMax ago.
  Probe Look() const;

 private:
  const Clock& clock_;
  std::atomic<int64_t> ticked_ns_{0};
  std::atomic<bool> stopped_{false};
};

}  // namespace reprise::telemetry
