// A view server over a MemoryLaneHost in a process of its own. Prints the socket's address, then
// answers one line of numbers per command line until its input ends.
// tests/support/view_host/view_host_process.h is the other side.
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <sstream>
#include <string>

#include "cluster/lanes/view/view_server.h"
#include "tests/support/memory_lane_host.h"
#include "tests/support/view_host/memfd_extents.h"

int main(int, char** argv) {
  using namespace reprise;
  testing::MemfdExtents extents;
  testing::MemoryLaneHost host(AttachmentId(std::stoull(argv[1])),
                               [&](uint64_t bytes) { return extents.Allocate(bytes); });
  auto server = lanes::ViewServer::Create({.host = &host, .exporter = &extents});
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
    }
    std::cout << answer << std::endl;
  }
  host.Unstall();
  return 0;
}
