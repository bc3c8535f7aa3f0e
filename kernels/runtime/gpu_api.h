// The CUDA runtime calls that Reprise makes, as plain functions: the one seam between a build with
// CUDA (gpu_api_cuda.cc, the runtime linked statically) and one without (gpu_api_none.cc, where
// every call answers kGpuNoDevice). Used by the RAII types of this folder; everybody else uses
// those.
//
// Thread safety: all functions may be called from any thread; the current device is per thread, as
// in CUDA.
#pragma once

#include <cstdint>

#include "kernels/runtime/gpu_types.h"

namespace reprise::kernels {

inline constexpr int kGpuIpcHandleBytes = 64;

struct GpuDescription {
  char name[256] = {};
  char pci_bus_id[32] = {};
  uint8_t uuid[16] = {};
  uint64_t memory_bytes = 0;
  uint64_t free_bytes = 0;
  int multiprocessors = 0;
  int compute_major = 0;
  int compute_minor = 0;
};

bool GpuBuiltIn();  // was this compiled with CUDA
const char* GpuCodeName(GpuCode code);
const char* GpuCodeText(GpuCode code);
GpuCode GpuTakeLastError();  // and clears it where CUDA allows that

GpuCode GpuDeviceCount(int* devices);
GpuCode GpuSetDevice(int device);
GpuCode GpuCurrentDevice(int* device);
GpuCode GpuDescribe(int device, GpuDescription* description);
// The description's uuid alone, which takes no context on the device.
GpuCode GpuUuid(int device, uint8_t uuid[16]);
GpuCode GpuPeerAccess(int device, int peer, bool* possible);
// Which device's memory `memory` points into; -1: host memory, pinned or not.
GpuCode GpuDeviceOf(const void* memory, int* device);

GpuCode GpuMalloc(void** memory, uint64_t bytes);
GpuCode GpuFree(void* memory);
GpuCode GpuHostAlloc(void** memory, uint64_t bytes);
GpuCode GpuHostFree(void* memory);
// `read_only`: memory that this process cannot write to, and the GPU will not.
GpuCode GpuHostRegister(void* memory, uint64_t bytes, bool read_only);
GpuCode GpuHostUnregister(void* memory);
GpuCode GpuCopyAsync(void* to, const void* from, uint64_t bytes, GpuStream stream);
GpuCode GpuFillAsync(void* to, uint8_t value, uint64_t bytes, GpuStream stream);

GpuCode GpuStreamCreate(GpuStream* stream);
GpuCode GpuStreamDestroy(GpuStream stream);
GpuCode GpuStreamSynchronize(GpuStream stream);
GpuCode GpuStreamQuery(GpuStream stream);  // kGpuNotReady while work is left
GpuCode GpuStreamWait(GpuStream stream, GpuEvent event);

GpuCode GpuEventCreate(GpuEvent* event);
GpuCode GpuEventDestroy(GpuEvent event);
GpuCode GpuEventRecord(GpuEvent event, GpuStream stream);
GpuCode GpuEventQuery(GpuEvent event);
GpuCode GpuEventSynchronize(GpuEvent event);
GpuCode GpuEventElapsed(GpuEvent start, GpuEvent end, float* milliseconds);

GpuCode GpuIpcExport(void* memory, uint8_t handle[kGpuIpcHandleBytes]);
GpuCode GpuIpcOpen(const uint8_t handle[kGpuIpcHandleBytes], void** memory);
GpuCode GpuIpcClose(void* memory);

}  // namespace reprise::kernels
