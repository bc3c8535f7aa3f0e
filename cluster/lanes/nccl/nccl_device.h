// What the NCCL lane needs of a device: ordered work and memory for it. A GPU in production; host
// memory in tests.
//
// Thread safety: NcclDevice from any thread; a queue from one thread at a time.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cluster/lanes/lane.h"

namespace reprise::lanes {

// One stream.
class DeviceQueue {
 public:
  virtual ~DeviceQueue() = default;
  virtual cudaStream_t handle() const = 0;
  // Whether everything given to it is done. An error means that the device failed.
  virtual absl::StatusOr<bool> Idle() = 0;
};

class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;
  virtual std::span<uint8_t> bytes() const = 0;
};

class NcclDevice {
 public:
  virtual ~NcclDevice() = default;
  // What blocks have to be in to be sent and received.
  virtual MemoryKind memory() const = 0;
  // Of device memory: which of this process's GPUs it is on (BlockSink::device()).
  virtual int index() const = 0;
  // Further NCCL calls of this thread mean this device.
  virtual absl::Status Enter() = 0;
  virtual absl::StatusOr<std::unique_ptr<DeviceQueue>> CreateQueue() = 0;
  // RESOURCE_EXHAUSTED when the device does not have it.
  virtual absl::StatusOr<std::unique_ptr<DeviceMemory>> Allocate(uint64_t bytes) = 0;
};

// A GPU of this machine. UNAVAILABLE when there is no such device. REQUIRES: used before process
// exit only.
absl::StatusOr<std::unique_ptr<NcclDevice>> OpenGpu(int device);

}  // namespace reprise::lanes
