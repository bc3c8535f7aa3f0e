// A GPU of host memory: an object library that defines everything of kernels/runtime/gpu_api.h and
// the kernels' launches, so that all that lies above them runs, and is wrong where a GPU would be
// wrong, on a machine without one. A program that links `reprise_fake_gpu` directly (reprise_test's
// DEPS, target_link_libraries of an executable) has it instead of CUDA, in a build with nvcc and in
// one without: a linker takes no archive member whose names are all defined already, and a name
// that this library forgot makes the program fail to link with two definitions of the others.
//
// What it is strict about, since a GPU is:
//   - the CPU that touches device memory is killed by SIGSEGV (device addresses are mapped without
//     access; copies and kernels go by a second mapping);
//   - kernels reach device memory and pinned host memory, and nothing else;
//   - new device memory is full of kFakeGpuPoison;
//   - with schedule=deferred a stream does nothing until somebody asks or waits, and then in an
//     order drawn from the seed, so that a missing wait is wrong bytes. Copies between device and
//     pageable host memory are as in CUDA: to the device the source is read at once, from the
//     device the call waits.
// What CUDA reports is reported with CUDA's code. What CUDA would leave to luck (a double free, a
// range that leaves its allocation, a destroyed stream) ends the process with a sentence.
//
// It differs from CUDA where a test gains by it: the limit of device memory is per process, and
// work on all devices of a process runs one piece at a time.
//
// The environment variable REPRISE_FAKE_GPU configures a process, comma-separated:
//   devices=N           devices that this process sees; 0: none, as without a driver (default 1)
//   first=N             which of the machine's devices is the process's device 0 (default 0): two
//                       processes with other values have different GPUs, with different uuids
//   memory=64MiB        of each device (default 256MiB)
//   ipc=allow|refuse    whether memory is exported and opened
//   peers=all|none      whether devices reach each other's memory
//   schedule=eager|deferred, seed=N
//   touch=caught|allowed   whether the CPU's touch of device memory is fatal
//   lost_after=N        the N-th piece of work given to a stream, and every call after it, fails
//                       with an error that CUDA cannot clear
//
// Thread safety: as gpu_api.h.
#pragma once

#include <cstdint>
#include <string>

namespace reprise::testing {

inline constexpr uint8_t kFakeGpuPoison = 0xCB;

struct FakeGpuOptions {
  int devices = 1;
  int first = 0;
  uint64_t memory_bytes = 256ull << 20;
  bool ipc = true;
  bool peers = true;
  bool deferred = false;
  uint64_t seed = 1;
  bool touch_caught = true;
  uint64_t lost_after = 0;  // 0: never
};

// As in REPRISE_FAKE_GPU. Ends the process when it is none of that.
FakeGpuOptions ParseFakeGpuOptions(const std::string& text);

// Starts anew with these options. REQUIRES: nothing is alive (UseOfFakeGpu().alive() is 0).
void ConfigureFakeGpu(const FakeGpuOptions& options);

// What this process has of the fake, and what it has given it to do.
struct FakeGpuUse {
  uint64_t device_bytes = 0;
  uint64_t buffers = 0;
  uint64_t openings = 0;  // of another process's memory
  uint64_t pinned = 0;    // ranges
  uint64_t streams = 0;
  uint64_t events = 0;
  uint64_t pending = 0;   // pieces of work that no stream has done yet
  uint64_t launches = 0;  // of kernels, since the start
  uint64_t copies = 0;    // and fills
  uint64_t exports = 0;

  uint64_t alive() const { return buffers + openings + pinned + streams + events; }
};
FakeGpuUse UseOfFakeGpu();

// Whether `memory` lies in device memory of this process or in an opening.
bool IsFakeDeviceMemory(const void* memory);

}  // namespace reprise::testing
