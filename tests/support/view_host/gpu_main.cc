// A view server over device memory in a process of its own: main ATTACHMENT device|mixed.
#include <string>

#include "tests/support/view_host/device_slots.h"
#include "tests/support/view_host/view_host_main.h"

int main(int, char** argv) {
  using namespace reprise;
  testing::DeviceSlots slots(std::string(argv[2]) == "mixed" ? 3 : 0);
  testing::MemoryLaneHost host(
      AttachmentId(std::stoull(argv[1])), [&](uint64_t bytes) { return slots.Allocate(bytes); },
      testing::CopyByGpu);
  return testing::RunViewHost(
      host, slots,
      {.shares = [&] { return slots.shares(); }, .unshared = [&] { return slots.unshared(); }});
}
