// The kernels' side of block_copy_cuda.h: everything a launch needs, by value. C++17, no CUDA
// header.
#pragma once

#include <cstdint>

#include "kernels/block_copy/copy_geometry.h"
#include "kernels/runtime/gpu_types.h"

namespace reprise::kernels {

struct RunLaunch {
  CopyGeometry geometry;
  const PagedPlane* planes = nullptr;  // device memory, all of the plan's
  uint32_t first_plane = 0;
  uint32_t plane_count = 0;
  const int64_t* page_table = nullptr;
  uint8_t* const* block_table = nullptr;
  uint32_t block_count = 0;
  uint32_t last_block_tokens = 0;

  REPRISE_HD uint32_t TokensOf(uint32_t block) const {
    return block + 1 == block_count ? last_block_tokens : geometry.block_tokens.divisor();
  }
};

GpuCode LaunchGather(const RunLaunch& launch, GpuStream stream);
GpuCode LaunchScatter(const RunLaunch& launch, GpuStream stream);

}  // namespace reprise::kernels
