// Sockets of the tcp lane: listening where gRPC listens, and dialling where gRPC is.
//
// Thread safety: free functions; no shared state.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cluster/lanes/descriptor.h"
#include "cluster/lanes/monotonic_deadline.h"

namespace reprise::lanes::tcp {

struct Listeners {
  std::vector<Descriptor> sockets;  // one for each address that the host has
  uint16_t port = 0;
};

// Listens on every address of `host`: a name, a number, or all addresses of the machine for
// "0.0.0.0" and "::". Port 0: a free one. UNAVAILABLE (TCP_LISTEN) naming host and port when it
// cannot be had on one of the addresses; those that the machine has not are passed over.
absl::StatusOr<Listeners> Listen(const std::string& host, uint16_t port);

// A connection to a numeric address, as SetUp leaves it. UNAVAILABLE
// (LANE_DOWN) when nobody listens there; DEADLINE_EXCEEDED.
absl::StatusOr<Descriptor> Dial(const std::string& host, uint16_t port, MonotonicDeadline deadline);

// Of a new socket: no delay of small messages, and a peer that is gone without a word is noticed.
void SetUp(const Descriptor& socket);

}  // namespace reprise::lanes::tcp
