// The block checksum (checksum.h) on a GPU: the checksums of many blocks, bit for bit those of the
// CPU.
//
// Bytes moved per block: block_bytes read once; 16 bytes written and read again per 16 KiB chunk
// and per section (0.2 % in all). Bound: the device's read bandwidth. Two kernels on the caller's
// stream whatever the number of blocks: chunks (four threads each), then sections and blocks.
//
// Thread safety: pure functions of their arguments; the scratch belongs to one call until the
// stream has passed it. C++17, no CUDA header.
#pragma once

#include <cstdint>

#include "kernels/checksum/checksum.h"
#include "kernels/runtime/gpu_types.h"

namespace reprise::kernels {

struct ChecksumBatch {
  const uint8_t* const* block_table =
      nullptr;  // the blocks' addresses; table and blocks where the device reaches them
  uint32_t block_count = 0;
  uint64_t block_bytes = 0;
  uint64_t section_bytes = 0;
  bool aligned =
      false;  // every block is 16-byte aligned: 16-byte loads (if the section size allows them)
  uint8_t* scratch = nullptr;  // device memory, ChecksumScratchBytes() of it, 16-byte aligned
  uint8_t* digests = nullptr;  // device-reachable, 16 bytes per block, 8-byte aligned
};

uint64_t ChecksumScratchBytes(uint32_t block_count, uint64_t block_bytes, uint64_t section_bytes);

// Launches on `stream` and returns. kGpuInvalidValue when a size is 0 or the grid would be too
// large; kGpuNoDevice in a build without CUDA. Nothing is launched for 0 blocks.
GpuCode ChecksumBlocksOnGpu(const ChecksumBatch& batch, GpuStream stream);

}  // namespace reprise::kernels
