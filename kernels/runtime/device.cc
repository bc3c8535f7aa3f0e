#include "kernels/runtime/device.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/runtime/gpu_api.h"
#include "kernels/runtime/gpu_status.h"
#include "proto/types/status_macros.h"

namespace reprise::kernels {

int DeviceCount() {
  int devices = 0;
  if (GpuDeviceCount(&devices) != kGpuOk) {
    GpuTakeLastError();
    return 0;
  }
  return devices;
}

std::string WhyNoDevice() {
  if (!GpuBuiltIn()) return "this build has no CUDA";
  int devices = 0;
  const GpuCode code = GpuDeviceCount(&devices);
  if (code != kGpuOk) {
    GpuTakeLastError();
    return absl::StrCat(GpuCodeName(code), ": ", GpuCodeText(code));
  }
  return devices == 0 ? "the driver lists no device" : "";
}

absl::StatusOr<DeviceInfo> DescribeDevice(int device) {
  GpuDescription found;
  REPRISE_RETURN_IF_ERROR(
      GpuStatus(GpuDescribe(device, &found), absl::StrCat("describing GPU ", device)));
  DeviceInfo info;
  info.name = found.name;
  info.pci_bus_id = found.pci_bus_id;
  std::copy(std::begin(found.uuid), std::end(found.uuid), info.uuid.begin());
  info.memory_bytes = found.memory_bytes;
  info.free_bytes = found.free_bytes;
  info.multiprocessors = found.multiprocessors;
  info.compute_major = found.compute_major;
  info.compute_minor = found.compute_minor;
  return info;
}

std::optional<int> DeviceWithUuid(const std::array<uint8_t, 16>& uuid) {
  for (int device = 0; device < DeviceCount(); ++device) {
    std::array<uint8_t, 16> own{};
    if (GpuUuid(device, own.data()) != kGpuOk) {
      GpuTakeLastError();
    } else if (own == uuid) {
      return device;
    }
  }
  return std::nullopt;
}

absl::StatusOr<bool> PeerAccessPossible(int device, int peer) {
  bool possible = false;
  REPRISE_RETURN_IF_ERROR(
      GpuStatus(GpuPeerAccess(device, peer, &possible),
                absl::StrCat("asking whether GPU ", device, " reaches GPU ", peer)));
  return possible;
}

absl::Status UseDevice(int device) {
  return GpuStatus(GpuSetDevice(device), absl::StrCat("choosing GPU ", device));
}

int CurrentDevice() {
  int device = 0;
  if (GpuCurrentDevice(&device) == kGpuOk) return device;
  GpuTakeLastError();
  return 0;
}

absl::StatusOr<int> DeviceOf(const void* memory) {
  int device = kHostMemory;
  REPRISE_RETURN_IF_ERROR(
      GpuStatus(GpuDeviceOf(memory, &device), "asking which device an address is of"));
  return device;
}

absl::StatusOr<DeviceScope> DeviceScope::Create(int device) {
  int before = 0;
  REPRISE_RETURN_IF_ERROR(GpuStatus(GpuCurrentDevice(&before), "asking for the thread's GPU"));
  DeviceScope scope(before);
  REPRISE_RETURN_IF_ERROR(UseDevice(device));
  return scope;
}

DeviceScope::DeviceScope(DeviceScope&& other) noexcept
    : before_(std::exchange(other.before_, -1)) {}

DeviceScope::~DeviceScope() {
  if (before_ >= 0 && GpuSetDevice(before_) != kGpuOk) GpuTakeLastError();
}

}  // namespace reprise::kernels
