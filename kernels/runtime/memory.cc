#include "kernels/runtime/memory.h"

#include "absl/strings/str_cat.h"
#include "kernels/runtime/device.h"
#include "kernels/runtime/gpu_status.h"
#include "proto/types/status_macros.h"

namespace reprise::kernels {

absl::StatusOr<DeviceBuffer> DeviceBuffer::Create(int device, uint64_t size_bytes) {
  REPRISE_RETURN_IF_ERROR(UseDevice(device));
  void* memory = nullptr;
  REPRISE_RETURN_IF_ERROR(
      GpuStatus(GpuMalloc(&memory, size_bytes),
                absl::StrCat("allocating ", size_bytes, " bytes on GPU ", device)));
  return DeviceBuffer(memory, size_bytes);
}

absl::StatusOr<IpcHandle> DeviceBuffer::Export() const {
  IpcHandle handle;
  REPRISE_RETURN_IF_ERROR(
      GpuStatus(GpuIpcExport(data(), handle.data()), "exporting device memory"));
  return handle;
}

absl::StatusOr<PinnedBuffer> PinnedBuffer::Create(uint64_t size_bytes) {
  void* memory = nullptr;
  REPRISE_RETURN_IF_ERROR(GpuStatus(GpuHostAlloc(&memory, size_bytes),
                                    absl::StrCat("allocating ", size_bytes, " pinned bytes")));
  return PinnedBuffer(memory, size_bytes);
}

absl::StatusOr<PinnedRange> PinnedRange::Create(void* memory, uint64_t size_bytes) {
  return Register(memory, size_bytes, /*read_only=*/false);
}

absl::StatusOr<PinnedRange> PinnedRange::CreateReadOnly(const void* memory, uint64_t size_bytes) {
  return Register(const_cast<void*>(memory), size_bytes, /*read_only=*/true);
}

absl::StatusOr<PinnedRange> PinnedRange::Register(void* memory, uint64_t size_bytes,
                                                  bool read_only) {
  REPRISE_RETURN_IF_ERROR(GpuStatus(GpuHostRegister(memory, size_bytes, read_only),
                                    absl::StrCat("pinning ", size_bytes, " bytes")));
  return PinnedRange(memory, size_bytes);
}

absl::StatusOr<OpenedDeviceMemory> OpenedDeviceMemory::Create(int device, const IpcHandle& handle,
                                                              uint64_t size_bytes) {
  REPRISE_RETURN_IF_ERROR(UseDevice(device));
  void* memory = nullptr;
  REPRISE_RETURN_IF_ERROR(
      GpuStatus(GpuIpcOpen(handle.data(), &memory), "opening another process's device memory"));
  return OpenedDeviceMemory(memory, size_bytes);
}

absl::Status CopyAsync(void* to, const void* from, uint64_t bytes, GpuStream stream) {
  return GpuStatus(GpuCopyAsync(to, from, bytes, stream),
                   absl::StrCat("copying ", bytes, " bytes"));
}

absl::Status FillAsync(void* to, uint8_t value, uint64_t bytes, GpuStream stream) {
  return GpuStatus(GpuFillAsync(to, value, bytes, stream),
                   absl::StrCat("filling ", bytes, " bytes"));
}

}  // namespace reprise::kernels
