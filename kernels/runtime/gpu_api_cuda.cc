#include <cuda_runtime_api.h>

#include <cstring>

#include "kernels/runtime/gpu_api.h"

namespace reprise::kernels {
namespace {

static_assert(kGpuOk == cudaSuccess);
static_assert(kGpuInvalidValue == cudaErrorInvalidValue);
static_assert(kGpuOutOfMemory == cudaErrorMemoryAllocation);
static_assert(kGpuOldDriver == cudaErrorInsufficientDriver);
static_assert(kGpuNoDevice == cudaErrorNoDevice);
static_assert(kGpuInvalidDevice == cudaErrorInvalidDevice);
static_assert(kGpuNotReady == cudaErrorNotReady);
static_assert(kGpuIpcHandleBytes == sizeof(cudaIpcMemHandle_t));

}  // namespace

bool GpuBuiltIn() {
  return true;
}
const char* GpuCodeName(GpuCode code) {
  return cudaGetErrorName(static_cast<cudaError_t>(code));
}
const char* GpuCodeText(GpuCode code) {
  return cudaGetErrorString(static_cast<cudaError_t>(code));
}
GpuCode GpuTakeLastError() {
  return cudaGetLastError();
}

GpuCode GpuDeviceCount(int* devices) {
  return cudaGetDeviceCount(devices);
}
GpuCode GpuSetDevice(int device) {
  return cudaSetDevice(device);
}
GpuCode GpuCurrentDevice(int* device) {
  return cudaGetDevice(device);
}

GpuCode GpuDescribe(int device, GpuDescription* description) {
  cudaDeviceProp properties;
  if (cudaError_t code = cudaGetDeviceProperties(&properties, device); code != cudaSuccess)
    return code;
  std::memcpy(description->name, properties.name, sizeof(description->name) - 1);
  std::memcpy(description->uuid, properties.uuid.bytes, sizeof(description->uuid));
  description->multiprocessors = properties.multiProcessorCount;
  description->compute_major = properties.major;
  description->compute_minor = properties.minor;
  if (cudaError_t code =
          cudaDeviceGetPCIBusId(description->pci_bus_id, sizeof(description->pci_bus_id), device);
      code != cudaSuccess) {
    return code;
  }
  int current = 0;
  if (cudaError_t code = cudaGetDevice(&current); code != cudaSuccess) return code;
  if (cudaError_t code = cudaSetDevice(device); code != cudaSuccess) return code;
  size_t free_bytes = 0;
  size_t memory_bytes = 0;
  const cudaError_t asked = cudaMemGetInfo(&free_bytes, &memory_bytes);
  const cudaError_t back = cudaSetDevice(current);
  description->free_bytes = free_bytes;
  description->memory_bytes = memory_bytes;
  return asked != cudaSuccess ? asked : back;
}

GpuCode GpuUuid(int device, uint8_t uuid[16]) {
  cudaDeviceProp properties;
  const cudaError_t code = cudaGetDeviceProperties(&properties, device);
  if (code == cudaSuccess) std::memcpy(uuid, properties.uuid.bytes, sizeof(properties.uuid.bytes));
  return code;
}

GpuCode GpuPeerAccess(int device, int peer, bool* possible) {
  int answer = 0;
  const cudaError_t code = cudaDeviceCanAccessPeer(&answer, device, peer);
  *possible = answer != 0;
  return code;
}

GpuCode GpuDeviceOf(const void* memory, int* device) {
  cudaPointerAttributes attributes;
  const cudaError_t code = cudaPointerGetAttributes(&attributes, memory);
  if (code != cudaSuccess) return code;
  const bool reached_as_device =
      attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged;
  *device = reached_as_device ? attributes.device : -1;
  return code;
}

GpuCode GpuMalloc(void** memory, uint64_t bytes) {
  return cudaMalloc(memory, bytes);
}
GpuCode GpuFree(void* memory) {
  return cudaFree(memory);
}
GpuCode GpuHostAlloc(void** memory, uint64_t bytes) {
  return cudaHostAlloc(memory, bytes, cudaHostAllocPortable);
}
GpuCode GpuHostFree(void* memory) {
  return cudaFreeHost(memory);
}
GpuCode GpuHostRegister(void* memory, uint64_t bytes, bool read_only) {
  return cudaHostRegister(memory, bytes,
                          cudaHostRegisterPortable | (read_only ? cudaHostRegisterReadOnly : 0u));
}
GpuCode GpuHostUnregister(void* memory) {
  return cudaHostUnregister(memory);
}
GpuCode GpuCopyAsync(void* to, const void* from, uint64_t bytes, GpuStream stream) {
  return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream);
}
GpuCode GpuFillAsync(void* to, uint8_t value, uint64_t bytes, GpuStream stream) {
  return cudaMemsetAsync(to, value, bytes, stream);
}

GpuCode GpuStreamCreate(GpuStream* stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking);
}
GpuCode GpuStreamDestroy(GpuStream stream) {
  return cudaStreamDestroy(stream);
}
GpuCode GpuStreamSynchronize(GpuStream stream) {
  return cudaStreamSynchronize(stream);
}
GpuCode GpuStreamQuery(GpuStream stream) {
  return cudaStreamQuery(stream);
}
GpuCode GpuStreamWait(GpuStream stream, GpuEvent event) {
  return cudaStreamWaitEvent(stream, event, 0);
}

GpuCode GpuEventCreate(GpuEvent* event) {
  return cudaEventCreate(event);
}
GpuCode GpuEventDestroy(GpuEvent event) {
  return cudaEventDestroy(event);
}
GpuCode GpuEventRecord(GpuEvent event, GpuStream stream) {
  return cudaEventRecord(event, stream);
}
GpuCode GpuEventQuery(GpuEvent event) {
  return cudaEventQuery(event);
}
GpuCode GpuEventSynchronize(GpuEvent event) {
  return cudaEventSynchronize(event);
}
GpuCode GpuEventElapsed(GpuEvent start, GpuEvent end, float* milliseconds) {
  return cudaEventElapsedTime(milliseconds, start, end);
}

GpuCode GpuIpcExport(void* memory, uint8_t handle[kGpuIpcHandleBytes]) {
  cudaIpcMemHandle_t exported;
  const cudaError_t code = cudaIpcGetMemHandle(&exported, memory);
  if (code == cudaSuccess) std::memcpy(handle, &exported, sizeof(exported));
  return code;
}

GpuCode GpuIpcOpen(const uint8_t handle[kGpuIpcHandleBytes], void** memory) {
  cudaIpcMemHandle_t exported;
  std::memcpy(&exported, handle, sizeof(exported));
  return cudaIpcOpenMemHandle(memory, exported, cudaIpcMemLazyEnablePeerAccess);
}

GpuCode GpuIpcClose(void* memory) {
  return cudaIpcCloseMemHandle(memory);
}

}  // namespace reprise::kernels
