#include <cstdio>
#include <cstring>

#include "kernels/runtime/gpu_api.h"
#include "tests/support/fake_gpu/fake_gpu_state.h"

namespace reprise::testing {
namespace {

int& Current() {
  thread_local int device = 0;
  return device;
}

}  // namespace

using namespace kernels;

int FakeGpu::CurrentDevice() const {
  return Current();
}

GpuCode FakeGpu::Health() const {
  std::lock_guard lock(mu_);
  return lost_ ? kFakeGpuIllegalAddress : kGpuOk;
}

GpuCode FakeGpu::Devices(int* devices) const {
  std::lock_guard lock(mu_);
  *devices = options_.devices;
  return options_.devices == 0 ? kGpuNoDevice : kGpuOk;
}

GpuCode FakeGpu::SetDevice(int device) {
  std::lock_guard lock(mu_);
  if (options_.devices == 0) return kGpuNoDevice;
  if (device < 0 || device >= options_.devices) return kGpuInvalidDevice;
  Current() = device;
  return lost_ ? kFakeGpuIllegalAddress : kGpuOk;
}

GpuCode FakeGpu::DeviceNow(int* device) const {
  std::lock_guard lock(mu_);
  if (options_.devices == 0) return kGpuNoDevice;
  *device = Current();
  return lost_ ? kFakeGpuIllegalAddress : kGpuOk;
}

GpuCode FakeGpu::DeviceOf(const void* memory, int* device) const {
  std::lock_guard lock(mu_);
  if (options_.devices == 0) return kGpuNoDevice;
  const Range* range = Find(memory);
  *device = -1;
  if (range != nullptr && range->device()) {
    const int index = range->machine_device - options_.first;
    *device = index >= 0 && index < options_.devices ? index : 0;
  }
  return lost_ ? kFakeGpuIllegalAddress : kGpuOk;
}

GpuCode FakeGpu::Describe(int device, GpuDescription* description) const {
  std::lock_guard lock(mu_);
  if (options_.devices == 0) return kGpuNoDevice;
  if (device < 0 || device >= options_.devices) return kGpuInvalidDevice;
  if (lost_) return kFakeGpuIllegalAddress;
  const int on_machine = options_.first + device;
  std::snprintf(description->name, sizeof(description->name), "fake GPU %d", on_machine);
  std::snprintf(description->pci_bus_id, sizeof(description->pci_bus_id), "0000:%02X:00.0",
                static_cast<unsigned>(on_machine) & 0xFFu);
  std::memcpy(description->uuid, "fake GPU number", 15);
  description->uuid[15] = static_cast<uint8_t>(on_machine);
  description->memory_bytes = options_.memory_bytes;
  description->free_bytes = options_.memory_bytes;
  for (const auto& [address, range] : ranges_) {
    if (range.kind == RangeKind::kDevice && range.machine_device == on_machine) {
      description->free_bytes -= range.bytes;
    }
  }
  description->multiprocessors = 4;
  description->compute_major = 9;
  description->compute_minor = 0;
  return kGpuOk;
}

GpuCode FakeGpu::PeerAccess(int device, int peer, bool* possible) const {
  std::lock_guard lock(mu_);
  *possible = false;
  if (options_.devices == 0) return kGpuNoDevice;
  for (const int one : {device, peer}) {
    if (one < 0 || one >= options_.devices) return kGpuInvalidDevice;
  }
  *possible = options_.peers && device != peer;
  return lost_ ? kFakeGpuIllegalAddress : kGpuOk;
}

}  // namespace reprise::testing

namespace reprise::kernels {
namespace {

testing::FakeGpu& Gpu() {
  return testing::FakeGpu::Get();
}

}  // namespace

bool GpuBuiltIn() {
  return true;
}

const char* GpuCodeName(GpuCode code) {
  switch (code) {
    case kGpuOk:
      return "cudaSuccess";
    case kGpuInvalidValue:
      return "cudaErrorInvalidValue";
    case kGpuOutOfMemory:
      return "cudaErrorMemoryAllocation";
    case kGpuNoDevice:
      return "cudaErrorNoDevice";
    case kGpuInvalidDevice:
      return "cudaErrorInvalidDevice";
    case kGpuNotReady:
      return "cudaErrorNotReady";
    case testing::kFakeGpuOwnHandle:
      return "cudaErrorDeviceUninitialized";
    case testing::kFakeGpuNoPeerAccess:
      return "cudaErrorPeerAccessUnsupported";
    case testing::kFakeGpuInvalidHandle:
      return "cudaErrorInvalidResourceHandle";
    case testing::kFakeGpuIllegalAddress:
      return "cudaErrorIllegalAddress";
    case testing::kFakeGpuPinnedAlready:
      return "cudaErrorHostMemoryAlreadyRegistered";
    case testing::kFakeGpuIpcRefused:
      return "cudaErrorNotSupported";
    default:
      return "cudaErrorUnknown";
  }
}
const char* GpuCodeText(GpuCode) {
  return "said by the fake GPU";
}
GpuCode GpuTakeLastError() {
  return Gpu().Health();
}

GpuCode GpuDeviceCount(int* devices) {
  return Gpu().Devices(devices);
}
GpuCode GpuSetDevice(int device) {
  return Gpu().SetDevice(device);
}
GpuCode GpuCurrentDevice(int* device) {
  return Gpu().DeviceNow(device);
}
GpuCode GpuDeviceOf(const void* memory, int* device) {
  return Gpu().DeviceOf(memory, device);
}
GpuCode GpuDescribe(int device, GpuDescription* description) {
  return Gpu().Describe(device, description);
}
GpuCode GpuUuid(int device, uint8_t uuid[16]) {
  GpuDescription description;
  const GpuCode code = Gpu().Describe(device, &description);
  if (code == kGpuOk) std::memcpy(uuid, description.uuid, sizeof(description.uuid));
  return code;
}
GpuCode GpuPeerAccess(int device, int peer, bool* possible) {
  return Gpu().PeerAccess(device, peer, possible);
}

GpuCode GpuMalloc(void** memory, uint64_t bytes) {
  return Gpu().Malloc(memory, bytes);
}
GpuCode GpuFree(void* memory) {
  return Gpu().Free(memory);
}
GpuCode GpuHostAlloc(void** memory, uint64_t bytes) {
  return Gpu().HostAlloc(memory, bytes);
}
GpuCode GpuHostFree(void* memory) {
  return Gpu().HostFree(memory);
}
GpuCode GpuHostRegister(void* memory, uint64_t bytes, bool read_only) {
  return Gpu().HostRegister(memory, bytes, read_only);
}
GpuCode GpuHostUnregister(void* memory) {
  return Gpu().HostUnregister(memory);
}
GpuCode GpuCopyAsync(void* to, const void* from, uint64_t bytes, GpuStream stream) {
  return Gpu().Copy(to, from, bytes, stream);
}
GpuCode GpuFillAsync(void* to, uint8_t value, uint64_t bytes, GpuStream stream) {
  return Gpu().Fill(to, value, bytes, stream);
}

GpuCode GpuStreamCreate(GpuStream* stream) {
  return Gpu().CreateStream(stream);
}
GpuCode GpuStreamDestroy(GpuStream stream) {
  return Gpu().DestroyStream(stream);
}
GpuCode GpuStreamSynchronize(GpuStream stream) {
  return Gpu().SynchronizeStream(stream);
}
GpuCode GpuStreamQuery(GpuStream stream) {
  return Gpu().QueryStream(stream);
}
GpuCode GpuStreamWait(GpuStream stream, GpuEvent event) {
  return Gpu().Wait(stream, event);
}

GpuCode GpuEventCreate(GpuEvent* event) {
  return Gpu().CreateEvent(event);
}
GpuCode GpuEventDestroy(GpuEvent event) {
  return Gpu().DestroyEvent(event);
}
GpuCode GpuEventRecord(GpuEvent event, GpuStream stream) {
  return Gpu().Record(event, stream);
}
GpuCode GpuEventQuery(GpuEvent event) {
  return Gpu().QueryEvent(event);
}
GpuCode GpuEventSynchronize(GpuEvent event) {
  return Gpu().SynchronizeEvent(event);
}
GpuCode GpuEventElapsed(GpuEvent start, GpuEvent end, float* milliseconds) {
  return Gpu().Elapsed(start, end, milliseconds);
}

GpuCode GpuIpcExport(void* memory, uint8_t handle[kGpuIpcHandleBytes]) {
  return Gpu().Export(memory, handle);
}
GpuCode GpuIpcOpen(const uint8_t handle[kGpuIpcHandleBytes], void** memory) {
  return Gpu().Open(handle, memory);
}
GpuCode GpuIpcClose(void* memory) {
  return Gpu().Close(memory);
}

}  // namespace reprise::kernels
