// CUDA's error codes as Status.
//
// CUDA remembers the last error of a thread and hands it to the next call that asks, so an error
// that was read but not cleared turns up in an innocent place. GpuStatus clears it. Some errors (an
// illegal access in a kernel) are not clearable: the process has lost its context, every further
// call fails alike, and the reason says so.
//
// Thread safety: free functions; the error that is cleared is the calling thread's.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "kernels/runtime/gpu_types.h"

namespace reprise::kernels {

// OK for kGpuOk. Otherwise, with `doing` ("cudaMalloc of 2 GiB") in the sentence:
//   RESOURCE_EXHAUSTED GPU_OUT_OF_MEMORY; UNAVAILABLE GPU_ABSENT (no device, no driver, or no CUDA
//   in this build); UNAVAILABLE GPU_LOST (the context cannot be used any more: restart the
//   process); INVALID_ARGUMENT GPU_ARGUMENT; INTERNAL GPU_ERROR (everything else).
absl::Status GpuStatus(GpuCode code, absl::string_view doing);

// Whether a status is one that GpuStatus made: the GPU's, and nobody else's.
bool IsGpuFailure(const absl::Status& status);

// Whether the process can go on using the GPU after `code`.
bool GpuContextSurvives(GpuCode code);

}  // namespace reprise::kernels
