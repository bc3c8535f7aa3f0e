// What the lanes of one link really carry per second: the figures that lane choice goes by once
// there are some.
//
// Invariants: newer bytes count more, halving with every kRateHalfLifeBytes; a job too small to
// tell a rate from its set-up counts for nothing; a lane that was not used for kRateAgeMax is as if
// it was never measured, so that a lane that was slow once is tried again. Pure: takes the time.
//
// Thread safety: none.
#pragma once

#include <array>
#include <cstdint>

#include "absl/time/time.h"
#include "proto/types/ids.h"

namespace reprise::lanes {

// Bytes per second seen lately; 0: not measured, what is known of the others and the figure in
// limits.h stand in.
struct LaneRates {
  double view = 0;
  double nccl = 0;
  double stream = 0;
  double tcp = 0;
};

// The part of `took` that a call counts for when others of its lane ran beside it: together they
// show what the lane carries, each by itself only its share. The numbers of calls, this one
// included, when it began and when it ended.
absl::Duration OwnPart(absl::Duration took, int calls_at_begin, int calls_at_end);

class RateMeter {
 public:
  // `bytes` went by `kind` in `time`, which ended at `now`.
  void Add(LaneKind kind, uint64_t bytes, absl::Duration time, absl::Time now);
  LaneRates At(absl::Time now) const;

 private:
  struct Seen {
    double bytes = 0;
    double seconds = 0;
    absl::Time latest = absl::InfinitePast();
  };
  double RateOf(LaneKind kind, absl::Time now) const;

  std::array<Seen, kLaneKinds> seen_{};  // by LaneKind
};

}  // namespace reprise::lanes
