#include "kernels/checksum/checksum_cuda.h"

namespace reprise::kernels {

GpuCode ChecksumBlocksOnGpu(const ChecksumBatch& batch, GpuStream) {
  return batch.block_count == 0 ? kGpuOk : kGpuNoDevice;
}

}  // namespace reprise::kernels
