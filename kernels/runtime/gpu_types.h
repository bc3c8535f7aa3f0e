// The few CUDA words that our own headers need, spelled so that no CUDA header has to be there:
// callers compile the same with and without a CUDA toolkit. C++17, since CUDA sources include it.
#pragma once

struct CUstream_st;
struct CUevent_st;

namespace reprise::kernels {

using GpuStream = CUstream_st*;  // cudaStream_t
using GpuEvent = CUevent_st*;    // cudaEvent_t
using GpuCode = int;             // cudaError_t; kernels/runtime/gpu_status.h makes a Status of it

inline constexpr GpuCode kGpuOk = 0;
inline constexpr GpuCode kGpuInvalidValue = 1;
inline constexpr GpuCode kGpuOutOfMemory = 2;
inline constexpr GpuCode kGpuOldDriver = 35;  // no driver at all, or one older than the runtime
inline constexpr GpuCode kGpuNoDevice = 100;
inline constexpr GpuCode kGpuInvalidDevice = 101;
inline constexpr GpuCode kGpuNotReady = 600;

}  // namespace reprise::kernels
