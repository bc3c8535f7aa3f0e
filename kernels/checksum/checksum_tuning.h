// Numbers of the CUDA checksum kernels. C++17.
#pragma once

#include <cstdint>

namespace reprise::kernels::checksum_tuning {

// One quad (4 threads) a chunk. 128 threads are 32 chunks, 512 KiB, a thread block.
inline constexpr uint32_t kChunkThreads = 128;

// 16-byte loads in flight per thread: 8 quarters of a stripe, 32 registers. With 16 warps resident
// on each of 132 multiprocessors that is 8.6 MB in flight, against the 3.8 MB that 4.8 TB/s and 800
// ns ask for.
inline constexpr uint32_t kLoadsInFlight = 8;

// One thread block a cache block for the digests of its sections and its own: 32 quads.
inline constexpr uint32_t kJoinThreads = 128;

}  // namespace reprise::kernels::checksum_tuning
