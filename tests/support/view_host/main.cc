// A view server over host memory in a process of its own: main ATTACHMENT.
#include <string>

#include "tests/support/view_host/memfd_extents.h"
#include "tests/support/view_host/view_host_main.h"

int main(int, char** argv) {
  using namespace reprise;
  testing::MemfdExtents extents;
  testing::MemoryLaneHost host(AttachmentId(std::stoull(argv[1])),
                               [&](uint64_t bytes) { return extents.Allocate(bytes); });
  return testing::RunViewHost(host, extents, {});
}
