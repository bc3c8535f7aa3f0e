#include "kernels/checksum/checksum_cuda.h"
#include "kernels/checksum/checksum_geometry.h"

namespace reprise::kernels {

uint64_t ChecksumScratchBytes(uint32_t block_count, uint64_t block_bytes, uint64_t section_bytes) {
  return block_count * MakeChecksumGeometry(block_bytes, section_bytes).block_scratch_bytes;
}

}  // namespace reprise::kernels
