// What an hbm pool asks of the device whose memory it hands out.
//
// A failure of the device itself has a reason that begins with GPU_ (kernels/runtime/gpu_status.h).
// After GPU_LOST or GPU_ABSENT nothing works any more.
//
// Thread safety: all methods may be called from any thread; they return when the device is done.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/types/checksum128.h"
#include "service/pool/dram_pool.h"
#include "service/pool/extent_place.h"
#include "service/pool/pool.h"

namespace reprise::shard {

class HbmDevice {
 public:
  virtual ~HbmDevice() = default;
  // Device memory, all zeroes. RESOURCE_EXHAUSTED when the device does not have it.
  virtual absl::StatusOr<uint8_t*> Allocate(uint64_t bytes) = 0;
  virtual void Free(uint8_t* memory) = 0;
  virtual absl::Status Zero(uint8_t* memory, uint64_t bytes) = 0;
  // Between two places of this device, or between it and host memory.
  virtual absl::Status Copy(uint8_t* to, const uint8_t* from, uint64_t bytes) = 0;
  // One checksum per block.
  virtual absl::Status Checksums(std::span<const uint8_t* const> blocks, const BlockShape& shape,
                                 std::span<Checksum128> checksums) = 0;
  // Host memory that copies from and to the device need not be staged for, while what it returns
  // lives. RESOURCE_EXHAUSTED or INTERNAL where the driver refuses.
  virtual absl::StatusOr<PinnedMemory> Pin(uint8_t* memory, uint64_t bytes) = 0;
  // UNAVAILABLE or INTERNAL where the driver refuses (containers without a shared IPC namespace).
  virtual absl::StatusOr<HbmHandle> Export(uint8_t* memory) = 0;
};

// A GPU of this machine. UNAVAILABLE when there is no such device.
absl::StatusOr<std::unique_ptr<HbmDevice>> OpenHbmDevice(int device);

}  // namespace reprise::shard
