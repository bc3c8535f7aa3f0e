#include "proto/wire/deadline.h"

#include <algorithm>

#include "absl/time/clock.h"
#include "proto/types/limits.h"

namespace reprise::wire {

gpr_timespec ToGprDeadline(absl::Time deadline) {
  const absl::Duration left =
      std::clamp(deadline - absl::Now(), absl::ZeroDuration(), limits::kCallDeadlineMax);
  return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                      gpr_time_from_nanos(absl::ToInt64Nanoseconds(left), GPR_TIMESPAN));
}

}  // namespace reprise::wire
