// Memory that a GPU can reach, owned: device memory, pinned host memory, the pinning of memory that
// somebody else owns, and another process's device memory mapped through CUDA IPC.
//
// Invariants: an object that exists holds live memory of size_bytes() bytes.
// Thread safety: values that move; the memory itself is nobody's to guard.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/runtime/gpu_api.h"
#include "kernels/runtime/gpu_types.h"

namespace reprise::kernels {

using IpcHandle = std::array<uint8_t, kGpuIpcHandleBytes>;

namespace internal {

// One owned address range; `kFree` gives it back.
template <GpuCode (*kFree)(void*)>
class OwnedRange {
 public:
  OwnedRange(OwnedRange&& other) noexcept : data_(other.data_), size_bytes_(other.size_bytes_) {
    other.data_ = nullptr;
    other.size_bytes_ = 0;
  }
  OwnedRange& operator=(OwnedRange&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_bytes_, other.size_bytes_);
    return *this;
  }
  ~OwnedRange() {
    if (data_ != nullptr && kFree(data_) != kGpuOk) GpuTakeLastError();
  }

  uint8_t* data() const { return static_cast<uint8_t*>(data_); }
  uint64_t size_bytes() const { return size_bytes_; }

 protected:
  OwnedRange(void* data, uint64_t size_bytes) : data_(data), size_bytes_(size_bytes) {}

 private:
  void* data_ = nullptr;
  uint64_t size_bytes_ = 0;
};

}  // namespace internal

class DeviceBuffer : public internal::OwnedRange<GpuFree> {
 public:
  // RESOURCE_EXHAUSTED when the device has not that much left, UNAVAILABLE without such a device.
  // 256-byte aligned.
  static absl::StatusOr<DeviceBuffer> Create(int device, uint64_t size_bytes);
  // For OpenedDeviceMemory in another process. UNAVAILABLE or INTERNAL where IPC is refused
  // (containers).
  absl::StatusOr<IpcHandle> Export() const;

 private:
  using OwnedRange::OwnedRange;
};

// Page-locked host memory, which every device copies from and to at full speed.
class PinnedBuffer : public internal::OwnedRange<GpuHostFree> {
 public:
  static absl::StatusOr<PinnedBuffer> Create(uint64_t size_bytes);
  std::span<uint8_t> bytes() const { return {data(), size_bytes()}; }

 private:
  using OwnedRange::OwnedRange;
};

// Pins memory that outlives this object.
class PinnedRange : public internal::OwnedRange<GpuHostUnregister> {
 public:
  static absl::StatusOr<PinnedRange> Create(void* memory, uint64_t size_bytes);
  // Of memory that is mapped for reading alone, which not every GPU can pin.
  static absl::StatusOr<PinnedRange> CreateReadOnly(const void* memory, uint64_t size_bytes);

 private:
  using OwnedRange::OwnedRange;
  static absl::StatusOr<PinnedRange> Register(void* memory, uint64_t size_bytes, bool read_only);
};

// Device memory of another process on this host.
class OpenedDeviceMemory : public internal::OwnedRange<GpuIpcClose> {
 public:
  // `size_bytes` is what the exporter said: CUDA does not check it.
  static absl::StatusOr<OpenedDeviceMemory> Create(int device, const IpcHandle& handle,
                                                   uint64_t size_bytes);

 private:
  using OwnedRange::OwnedRange;
};

// Between any two of host, pinned and device memory; CUDA finds out which.
absl::Status CopyAsync(void* to, const void* from, uint64_t bytes, GpuStream stream);
absl::Status FillAsync(void* to, uint8_t value, uint64_t bytes, GpuStream stream);

}  // namespace reprise::kernels
