// Numbers of the CUDA quantisation kernels. C++17.
#pragma once

#include <cstdint>

namespace reprise::kernels::quantize_tuning {

// One thread block a (block, K|V, head) where one scale is for all of it: 16 tokens of 128 bf16 are
// 256 16-byte loads, 2 per thread.
inline constexpr uint32_t kScaledThreads = 128;

// Vectors of a head that a thread keeps in registers between finding the scale and using it: enough
// for 32 tokens of 128 bf16. Longer heads are read twice.
inline constexpr uint32_t kScaledHeld = 4;

// Elsewhere a thread is one group or one 16-byte access of the engine, independent of all others.
inline constexpr uint32_t kItemThreads = 256;

// Items whose reads a decoding thread has under way before it writes: one alone is 8 bytes of
// codes, too few in flight to fill the memory's latency.
inline constexpr uint32_t kDecodeItems = 4;

}  // namespace reprise::kernels::quantize_tuning
