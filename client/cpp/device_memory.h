// Caller memory on a GPU: what is checked of it before a kernel touches it, since an address that
// is none of the GPU's would cost the engine its whole context; and plans over it.
//
// Thread safety: free functions, from any thread, whose current device they leave as it was.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/cpp/caller_memory.h"
#include "kernels/block_copy/block_copy_cuda.h"
#include "kernels/runtime/gpu_types.h"
#include "kernels/runtime/stream.h"
#include "proto/types/cache_spec.h"

namespace reprise::client {

// UNAVAILABLE, with the reason, when this process has no GPU; INVALID_ARGUMENT when it has no such
// one.
absl::Status CheckDevice(int device);

// A plan over an engine's tensors on a GPU: `plan` as CallerMemory::plan, `uploaded` as its
// gpu_plan.
struct DevicePlan {
  int device = kernels::kHostMemory;
  std::shared_ptr<const kernels::PagedPlan> plan;
  std::shared_ptr<const kernels::GpuPlan> uploaded;
};

// Made once per engine. As MakePagedPlan and CheckDevice, and INVALID_ARGUMENT for a plane that is
// not in that GPU's memory.
absl::StatusOr<DevicePlan> MakeDevicePlan(const BlockLayout& layout,
                                          std::vector<kernels::PagedPlane> planes,
                                          uint32_t page_tokens, int device);

// Whether the first `blocks` blocks of `memory` are on its device. REQUIRES: one form is given, and
// memory.device is none of host memory.
absl::Status CheckDeviceMemory(const CallerMemory& memory, uint32_t blocks);

// What was given to the caller's stream until now, for CallerMemory::after.
absl::StatusOr<std::shared_ptr<const kernels::Event>> MarkStream(int device,
                                                                 kernels::GpuStream stream);

// Waits for memory.after, on the host: what waits on the GPU cannot be taken back at a deadline.
// DEADLINE_EXCEEDED, reason CALLER_STREAM_BUSY, when it is not done by then. REQUIRES: the thread's
// device is the memory's.
absl::Status AwaitStream(const CallerMemory& memory, absl::Time deadline);

}  // namespace reprise::client
