#include "cluster/lanes/lane_rates.h"

#include <cmath>

#include "proto/types/limits.h"

namespace reprise::lanes {

absl::Duration OwnPart(absl::Duration took, int calls_at_begin, int calls_at_end) {
  return 2 * took / (calls_at_begin + calls_at_end);
}

void RateMeter::Add(LaneKind kind, uint64_t bytes, absl::Duration time, absl::Time now) {
  if (bytes < limits::kRateJobBytesMin || time <= absl::ZeroDuration()) return;
  Seen& seen = seen_[static_cast<size_t>(kind)];
  if (now - seen.latest > limits::kRateAgeMax) seen = Seen{};
  const double kept = std::exp2(-static_cast<double>(bytes) / limits::kRateHalfLifeBytes);
  seen.bytes = seen.bytes * kept + static_cast<double>(bytes);
  seen.seconds = seen.seconds * kept + absl::ToDoubleSeconds(time);
  seen.latest = now;
}

double RateMeter::RateOf(LaneKind kind, absl::Time now) const {
  const Seen& seen = seen_[static_cast<size_t>(kind)];
  if (seen.seconds <= 0 || now - seen.latest > limits::kRateAgeMax) return 0;
  return seen.bytes / seen.seconds;
}

LaneRates RateMeter::At(absl::Time now) const {
  return {.view = RateOf(LaneKind::kView, now),
          .nccl = RateOf(LaneKind::kNccl, now),
          .stream = RateOf(LaneKind::kStream, now),
          .tcp = RateOf(LaneKind::kTcp, now)};
}

}  // namespace reprise::lanes
