// How long a call on a socket goes on.
//
// Thread safety: a value.
#pragma once

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cluster/lanes/descriptor.h"
#include "cluster/lanes/monotonic_deadline.h"

namespace reprise::lanes::tcp {

struct SocketWait {
  MonotonicDeadline deadline;
  absl::Duration stall = absl::InfiniteDuration();  // without a byte either way

  // DEADLINE_EXCEEDED when the deadline is over. To be asked before each system call: where bytes
  // are always there nothing is ever waited for.
  absl::Status Check() const;
  // Until poll(2) reports one of `events` or an error. UNAVAILABLE (LANE_DOWN) when nothing moved
  // for `stall`, DEADLINE_EXCEEDED.
  absl::Status For(const Descriptor& socket, short events) const;
};

}  // namespace reprise::lanes::tcp
