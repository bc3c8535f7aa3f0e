// Where an address lies in a pool, for a lane that maps memory into another process.
#pragma once

#include <array>
#include <cstdint>

namespace reprise::shard {

struct ExtentPlace {
  uint64_t extent_id =
      0;  // never used for other memory, not even when the extent gets another owner
  uint32_t extent = 0;
  int fd = -1;  // host memory: a memfd of extent_bytes, owned by the pool; -1: not host memory
  uint64_t offset_bytes = 0;  // of the address in the extent
  uint64_t extent_bytes = 0;
};

// What another process needs to map an extent in device memory (CUDA IPC), and which device it is
// on.
struct HbmHandle {
  std::array<uint8_t, 64> ipc{};
  std::array<uint8_t, 16> device_uuid{};
};

}  // namespace reprise::shard
