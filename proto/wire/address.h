// Addresses as text: "host:port", and what gRPC calls the other end of a connection.
//
// Thread safety: free functions; no shared state.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace reprise::wire {

// The host of "host:port", without the brackets of an IPv6 address; "" when there is no colon.
std::string HostOf(absl::string_view host_port);

// The numeric address in grpc::ClientContext::peer() ("ipv4:10.0.0.7:7070",
// "ipv6:%5Bfd00::7%5D:7070"); "" for a peer that has none.
std::string HostOfPeer(absl::string_view peer);

}  // namespace reprise::wire
