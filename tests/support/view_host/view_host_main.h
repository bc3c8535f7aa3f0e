// What a process of tests/support/view_host/view_host_process.h does: a view server over a
// MemoryLaneHost. Prints the socket's address, then answers one line of numbers per command line
// until its input ends.
#pragma once

#include <cstdint>
#include <functional>
#include <iostream>
#include <sstream>
#include <string>

#include "cluster/lanes/view/view_server.h"
#include "tests/support/memory_lane_host.h"

namespace reprise::testing {

// `shares`: how often an extent in device memory was shared, and `unshared`, how many attachments
// gave all back.
struct ViewHostCounts {
  std::function<uint64_t()> shares = [] { return 0; };
  std::function<uint64_t()> unshared = [] { return 0; };
};

inline int RunViewHost(MemoryLaneHost& host, lanes::ExtentExporter& exporter,
                       const ViewHostCounts& counts) {
  auto server = lanes::ViewServer::Create({.host = &host, .exporter = &exporter});
  if (!server.ok()) return 1;
  std::cout << (*server)->address() << std::endl;
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream in(line);
    std::string verb;
    uint64_t a = 0, b = 0, c = 0, d = 0, answer = 0;
    in >> verb >> a >> b >> c >> d;
    const auto u32 = [](uint64_t v) { return static_cast<uint32_t>(v); };
    if (verb == "lease") {
      answer =
          host.Lease({.seed = a, .first_block = u32(b), .blocks = u32(c), .block_bytes = d}).value;
    } else if (verb == "reserve") {
      answer = host.Reserve(u32(a), b).value;
    } else if (verb == "lease_written") {
      answer = host.LeaseWritten(ReservationId(a)).value;
    } else if (verb == "end_lease") {
      host.EndLease(LeaseId(a));
    } else if (verb == "end_reservation") {
      host.EndReservation(ReservationId(a));
    } else if (verb == "refuse_writes") {
      host.RefuseWrites(ReservationId(a), u32(b));
    } else if (verb == "bytes_written") {
      answer = host.BytesWritten(ReservationId(a), u32(b));
    } else if (verb == "stall") {
      host.Stall();
    } else if (verb == "unstall") {
      host.Unstall();
    } else if (verb == "await_no_pins") {
      answer = host.AwaitNoPins(absl::Milliseconds(a)) ? 1 : 0;
    } else if (verb == "end_attachment") {
      (*server)->EndAttachment(host.attachment());
    } else if (verb == "shares") {
      answer = counts.shares();
    } else if (verb == "unshared") {
      answer = counts.unshared();
    }
    std::cout << answer << std::endl;
  }
  host.Unstall();
  return 0;
}

}  // namespace reprise::testing
