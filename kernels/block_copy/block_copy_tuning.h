// Numbers of the CUDA block copy kernels. C++17.
#pragma once

#include <cstdint>

namespace reprise::kernels::block_copy_tuning {

inline constexpr uint32_t kThreads = 256;

// Units that a thread loads before it stores the first: 4 of 16 bytes are 64 bytes in flight per
// thread, 128 KiB per multiprocessor at full occupancy, several times what 4.8 TB/s and 800 ns ask
// of each of 132.
inline constexpr uint32_t kUnitsPerThread = 4;

inline constexpr uint32_t kUnitsPerTile = kThreads * kUnitsPerThread;

}  // namespace reprise::kernels::block_copy_tuning
