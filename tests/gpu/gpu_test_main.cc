// The GPU tests. Without a GPU the program says SKIPPED and why, and ends with 0, or with
// --skip-exit=N where the caller can tell a skip from a pass (ctest: 77).
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "kernels/runtime/device.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  int skip_exit = 0;
  for (int i = 1; i < argc; ++i) {
    if (std::strncmp(argv[i], "--skip-exit=", 12) == 0) skip_exit = std::atoi(argv[i] + 12);
  }
  const std::string reason = reprise::kernels::WhyNoDevice();
  if (!reason.empty()) {
    std::printf("SKIPPED: no GPU to test on (%s)\n", reason.c_str());
    return skip_exit;
  }
  const absl::StatusOr<reprise::kernels::DeviceInfo> device = reprise::kernels::DescribeDevice(0);
  if (!device.ok()) {
    std::printf("GPU 0: %s\n", device.status().ToString().c_str());
    return 1;
  }
  std::printf("GPU 0: %s, compute capability %d.%d\n", device->name.c_str(), device->compute_major,
              device->compute_minor);
  return RUN_ALL_TESTS();
}
