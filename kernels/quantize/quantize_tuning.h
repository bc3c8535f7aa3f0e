// Numbers of the CUDA quantisation kernels. C++17.
#pragma once

#include <cstdint>

namespace reprise::kernels::quantize_tuning {

// One thread block a (block, K|V, head) where one scale is for all of it: 16 tokens of 128 bf16 are
// 256 16-byte loads, 2 per thread.
inline constexpr uint32_t kScaledThreads = 128;

// Elsewhere a thread is one group or one 16-byte access of the engine, independent of all others.
inline constexpr uint32_t kItemThreads = 256;

}  // namespace reprise::kernels::quantize_tuning
