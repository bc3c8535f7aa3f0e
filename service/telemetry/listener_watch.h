// Whether a listener of this process still takes in connections, seen from outside of it: from the
// kernel's queue of those that wait. Needs no connection of its own, and so works under TLS too.
//
// It is there because gRPC 1.51's listener never accepts again once the process was out of file
// descriptors (CVE-2023-4785), while everything else in it is well.
//
// Thread safety: one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "proto/types/clock.h"
#include "service/telemetry/status_pages.h"

namespace reprise::telemetry {

// Connections that wait for listeners on `port`, from the text of /proc/net/tcp or tcp6. nullopt:
// nobody listens there.
std::optional<uint64_t> ParseBacklog(absl::string_view table, uint16_t port);

class ListenerWatch {
 public:
  // `address` is host:port as bound. REQUIRES: `clock` outlives this.
  explicit ListenerWatch(const std::string& address, const Clock& clock = MonotonicClock());

  // Not well when connections were waiting at every look for limits::kLivenessSilenceMax. One that
  // closed its listener is well: it stops.
  Probe Look();

 private:
  const uint16_t port_;
  const Clock& clock_;
  std::optional<absl::Time> waiting_since_;
};

}  // namespace reprise::telemetry
