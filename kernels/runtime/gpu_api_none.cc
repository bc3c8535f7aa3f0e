#include "kernels/runtime/gpu_api.h"

namespace reprise::kernels {

bool GpuBuiltIn() {
  return false;
}
const char* GpuCodeName(GpuCode code) {
  return code == kGpuOk ? "cudaSuccess" : "cudaErrorNoDevice";
}
const char* GpuCodeText(GpuCode code) {
  return code == kGpuOk ? "no error" : "this build has no CUDA";
}
GpuCode GpuTakeLastError() {
  return kGpuOk;
}

GpuCode GpuDeviceCount(int* devices) {
  *devices = 0;
  return kGpuNoDevice;
}
GpuCode GpuSetDevice(int) {
  return kGpuNoDevice;
}
GpuCode GpuCurrentDevice(int*) {
  return kGpuNoDevice;
}
GpuCode GpuDescribe(int, GpuDescription*) {
  return kGpuNoDevice;
}
GpuCode GpuUuid(int, uint8_t*) {
  return kGpuNoDevice;
}
GpuCode GpuPeerAccess(int, int, bool* possible) {
  *possible = false;
  return kGpuNoDevice;
}
GpuCode GpuDeviceOf(const void*, int*) {
  return kGpuNoDevice;
}

GpuCode GpuMalloc(void**, uint64_t) {
  return kGpuNoDevice;
}
GpuCode GpuFree(void*) {
  return kGpuNoDevice;
}
GpuCode GpuHostAlloc(void**, uint64_t) {
  return kGpuNoDevice;
}
GpuCode GpuHostFree(void*) {
  return kGpuNoDevice;
}
GpuCode GpuHostRegister(void*, uint64_t, bool) {
  return kGpuNoDevice;
}
GpuCode GpuHostUnregister(void*) {
  return kGpuNoDevice;
}
GpuCode GpuCopyAsync(void*, const void*, uint64_t, GpuStream) {
  return kGpuNoDevice;
}
GpuCode GpuFillAsync(void*, uint8_t, uint64_t, GpuStream) {
  return kGpuNoDevice;
}

GpuCode GpuStreamCreate(GpuStream*) {
  return kGpuNoDevice;
}
GpuCode GpuStreamDestroy(GpuStream) {
  return kGpuNoDevice;
}
GpuCode GpuStreamSynchronize(GpuStream) {
  return kGpuNoDevice;
}
GpuCode GpuStreamQuery(GpuStream) {
  return kGpuNoDevice;
}
GpuCode GpuStreamWait(GpuStream, GpuEvent) {
  return kGpuNoDevice;
}

GpuCode GpuEventCreate(GpuEvent*) {
  return kGpuNoDevice;
}
GpuCode GpuEventDestroy(GpuEvent) {
  return kGpuNoDevice;
}
GpuCode GpuEventRecord(GpuEvent, GpuStream) {
  return kGpuNoDevice;
}
GpuCode GpuEventQuery(GpuEvent) {
  return kGpuNoDevice;
}
GpuCode GpuEventSynchronize(GpuEvent) {
  return kGpuNoDevice;
}
GpuCode GpuEventElapsed(GpuEvent, GpuEvent, float*) {
  return kGpuNoDevice;
}

GpuCode GpuIpcExport(void*, uint8_t*) {
  return kGpuNoDevice;
}
GpuCode GpuIpcOpen(const uint8_t*, void**) {
  return kGpuNoDevice;
}
GpuCode GpuIpcClose(void*) {
  return kGpuNoDevice;
}

}  // namespace reprise::kernels
