// The fake GPU's insides: which memory there is, and what streams have still to do.
//
// Invariants: ranges do not overlap; a range of device memory is mapped twice, at its own address
// (without access, unless touch=allowed) and at `alias`; work runs under the lock, one piece at a
// time. Thread safety: public methods from any thread; Reach only from work and under the lock.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "kernels/runtime/gpu_api.h"
#include "tests/support/fake_gpu/fake_gpu.h"
#include "tests/support/fake_nccl/fake_stream.h"

namespace reprise::testing {

using kernels::GpuCode;
using kernels::GpuEvent;
using kernels::GpuStream;

// Says what was misused, and ends the process.
[[noreturn]] void Misused(const std::string& what);

inline constexpr GpuCode kFakeGpuIpcRefused = 801;      // cudaErrorNotSupported
inline constexpr GpuCode kFakeGpuInvalidHandle = 400;   // cudaErrorInvalidResourceHandle
inline constexpr GpuCode kFakeGpuNoPeerAccess = 217;    // cudaErrorPeerAccessUnsupported
inline constexpr GpuCode kFakeGpuOwnHandle = 201;       // cudaErrorDeviceUninitialized
inline constexpr GpuCode kFakeGpuPinnedAlready = 712;   // cudaErrorHostMemoryAlreadyRegistered
inline constexpr GpuCode kFakeGpuIllegalAddress = 700;  // cudaErrorIllegalAddress

enum class RangeKind { kDevice, kOpened, kPinned, kRegistered };

struct Range {
  RangeKind kind = RangeKind::kDevice;
  uint8_t* base = nullptr;
  uint8_t* alias = nullptr;  // where work reaches it
  uint64_t bytes = 0;
  int machine_device = 0;  // of device memory; numbered over the whole machine
  int fd = -1;
  uint64_t inode = 0;
  int openings = 0;

  bool device() const { return kind == RangeKind::kDevice || kind == RangeKind::kOpened; }
};

struct EventState {
  uint64_t recorded = 0;  // records given to streams
  uint64_t done = 0;      // records that streams have passed
  std::chrono::steady_clock::time_point at;
};

struct Work {
  std::function<void()> run;
  std::shared_ptr<EventState> record;
  std::shared_ptr<EventState> wait;
  uint64_t count = 0;  // of the event's records
};

// Its address is the GpuStream; the fake libnccl takes it for its own.
struct StreamState : FakeStream {
  int machine_device = 0;
  bool destroyed = false;
  std::deque<Work> work;
};

class FakeGpu {
 public:
  // The process's. Configured from the environment on first use.
  static FakeGpu& Get();

  void Configure(const FakeGpuOptions& options);
  FakeGpuUse Use() const;
  bool IsDeviceMemory(const void* memory) const;

  // kGpuOk, or why every call of this process fails.
  GpuCode Health() const;
  GpuCode Devices(int* devices) const;
  GpuCode SetDevice(int device);
  GpuCode DeviceNow(int* device) const;
  GpuCode DeviceOf(const void* memory, int* device) const;
  GpuCode Describe(int device, kernels::GpuDescription* description) const;
  GpuCode PeerAccess(int device, int peer, bool* possible) const;

  GpuCode Malloc(void** memory, uint64_t bytes);
  GpuCode Free(void* memory);
  GpuCode HostAlloc(void** memory, uint64_t bytes);
  GpuCode HostFree(void* memory);
  GpuCode HostRegister(void* memory, uint64_t bytes, bool read_only);
  GpuCode HostUnregister(void* memory);
  GpuCode Copy(void* to, const void* from, uint64_t bytes, GpuStream stream);
  GpuCode Fill(void* to, uint8_t value, uint64_t bytes, GpuStream stream);

  GpuCode CreateStream(GpuStream* stream);
  GpuCode DestroyStream(GpuStream stream);
  GpuCode QueryStream(GpuStream stream);
  GpuCode SynchronizeStream(GpuStream stream);
  GpuCode Wait(GpuStream stream, GpuEvent event);
  GpuCode CreateEvent(GpuEvent* event);
  GpuCode DestroyEvent(GpuEvent event);
  GpuCode Record(GpuEvent event, GpuStream stream);
  GpuCode QueryEvent(GpuEvent event);
  GpuCode SynchronizeEvent(GpuEvent event);
  GpuCode Elapsed(GpuEvent start, GpuEvent end, float* milliseconds);

  GpuCode Export(void* memory, uint8_t handle[kernels::kGpuIpcHandleBytes]);
  GpuCode Open(const uint8_t handle[kernels::kGpuIpcHandleBytes], void** memory);
  GpuCode Close(void* memory);

  // Gives a kernel to a stream. `kernel` may call Reach.
  GpuCode Launch(GpuStream stream, std::function<void()> kernel);
  // Where the calling work reaches `bytes` bytes at `memory`. Misused when the device cannot.
  uint8_t* Reach(const void* memory, uint64_t bytes, const char* what);

 private:
  FakeGpu() = default;

  const Range* Find(const void* memory) const;
  Range& Owned(void* memory, RangeKind kind, const char* call);
  uint8_t* Translate(const void* memory, uint64_t bytes, const char* what);
  GpuCode Map(Range range, void** memory);
  void Unmap(const Range& range);
  int CurrentDevice() const;

  StreamState& Find(GpuStream stream);
  std::shared_ptr<EventState>& Find(GpuEvent event);
  GpuCode Enqueue(GpuStream stream, Work work);
  bool Runnable(const StreamState& stream) const;
  bool Step();
  void RunHead(StreamState& stream);
  void Drain(StreamState& stream);
  void DrainAll();
  void SomeSteps();

  mutable std::mutex mu_;
  FakeGpuOptions options_;
  std::mt19937_64 random_;
  bool lost_ = false;
  uint64_t given_ = 0;  // pieces of work
  std::map<uintptr_t, Range> ranges_;
  std::vector<std::unique_ptr<StreamState>> streams_;
  std::unique_ptr<StreamState> default_stream_;
  std::map<GpuEvent, std::shared_ptr<EventState>> events_;
  uint64_t next_event_ = 1;
  FakeGpuUse counts_;
  int kernel_device_ = -1;  // while work runs
};

}  // namespace reprise::testing
