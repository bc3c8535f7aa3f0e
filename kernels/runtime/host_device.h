// REPRISE_HD marks a function that runs on the GPU and, compiled by any C++ compiler, on the CPU:
// that is how a machine without a GPU proves what a kernel computes. C++17.
#pragma once

#ifdef __CUDACC__
#define REPRISE_HD __host__ __device__ __forceinline__
#define REPRISE_UNROLL _Pragma("unroll")
#else
#define REPRISE_HD inline
#define REPRISE_UNROLL
#endif
