// Deadlines on their way into gRPC.
//
// Thread safety: free functions; no shared state.
#pragma once

#include <grpc/support/time.h>

#include "absl/time/time.h"

namespace reprise::wire {

// `deadline`, a point of absl::Now(), as a point of gRPC's monotonic clock: a wall clock that jumps
// afterwards changes nothing. InfinitePast() is over at once; beyond kCallDeadlineMax is cut to it,
// so that no call is without a deadline.
gpr_timespec ToGprDeadline(absl::Time deadline);

}  // namespace reprise::wire
