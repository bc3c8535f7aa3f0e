// Which GPUs there are. A machine without a driver, without a device or a build without CUDA is no
// error: it has 0.
//
// Thread safety: free functions, from any thread; a DeviceScope belongs to one.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace reprise::kernels {

struct DeviceInfo {
  std::string name;
  std::string pci_bus_id;
  std::array<uint8_t, 16>
      uuid{};  // the same device in two processes or containers has the same one
  uint64_t memory_bytes = 0;
  uint64_t free_bytes = 0;
  int multiprocessors = 0;
  int compute_major = 0;
  int compute_minor = 0;
};

int DeviceCount();

// Why DeviceCount() is 0, for people: "this build has no CUDA", "no driver", ...; empty when it is
// not 0.
std::string WhyNoDevice();

// UNAVAILABLE when there is no such device.
absl::StatusOr<DeviceInfo> DescribeDevice(int device);

// The device with that uuid, where this process has it; takes no context on any device.
std::optional<int> DeviceWithUuid(const std::array<uint8_t, 16>& uuid);

// Whether kernels on `device` can read the memory of `peer`.
absl::StatusOr<bool> PeerAccessPossible(int device, int peer);

// Further calls of this thread mean `device`. For threads of our own; on another's, a DeviceScope.
absl::Status UseDevice(int device);

// What calls of this thread mean: 0 until it chose, and where there is no device.
int CurrentDevice();

inline constexpr int kHostMemory = -1;

// The device whose memory `memory` points into; kHostMemory for any other address.
absl::StatusOr<int> DeviceOf(const void* memory);

// The calling thread's device for the time of a scope: an engine's thread, whose own device must be
// what it was. Made and ended by one thread.
class DeviceScope {
 public:
  // UNAVAILABLE when there is no such device.
  static absl::StatusOr<DeviceScope> Create(int device);
  DeviceScope(DeviceScope&& other) noexcept;
  DeviceScope& operator=(DeviceScope&&) = delete;
  ~DeviceScope();

 private:
  explicit DeviceScope(int before) : before_(before) {}
  int before_;  // -1: moved from
};

}  // namespace reprise::kernels
