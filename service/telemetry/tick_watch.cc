#include "service/telemetry/tick_watch.h"

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "proto/types/limits.h"

namespace reprise::telemetry {

void TickWatch::Ticked() {
  ticked_ns_.store(absl::ToUnixNanos(clock_.Now()), std::memory_order_relaxed);
}

Probe TickWatch::Look() const {
  if (stopped_.load(std::memory_order_relaxed)) return {};
  const absl::Duration silence =
      clock_.Now() - absl::FromUnixNanos(ticked_ns_.load(std::memory_order_relaxed));
  if (silence < limits::kLivenessSilenceMax) return {};
  return absl::StrCat("the upkeep has stood still for ", absl::FormatDuration(silence));
}

}  // namespace reprise::telemetry
