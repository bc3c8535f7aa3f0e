#include <cuda_runtime_api.h>

#include "kernels/block_copy/block_copy_launch.h"
#include "kernels/block_copy/block_copy_tuning.h"

namespace reprise::kernels {
namespace {

using block_copy_tuning::kThreads;
using block_copy_tuning::kUnitsPerThread;
using block_copy_tuning::kUnitsPerTile;

// Each thread block copies one tile of one plane of one block: grid x is block * tiles + tile, grid
// y the plane.
template <typename Unit>
struct Tile {
  PagedPlane plane;
  const int64_t* pages;
  Unit* block_plane;
  uint32_t tokens;
  uint32_t first_unit;

  __device__ __forceinline__ Tile(const RunLaunch& launch, uint32_t tiles) {
    const uint32_t block = blockIdx.x / tiles;
    const uint32_t plane_index = launch.first_plane + blockIdx.y;
    plane = launch.planes[plane_index];
    pages = launch.page_table + static_cast<uint64_t>(block) * launch.geometry.pages_per_block;
    block_plane = reinterpret_cast<Unit*>(launch.block_table[block] +
                                          plane_index * launch.geometry.plane_bytes);
    tokens = launch.TokensOf(block);
    first_unit = (blockIdx.x - block * tiles) * kUnitsPerTile + threadIdx.x;
  }
};

template <typename Unit>
__global__ void __launch_bounds__(kThreads) GatherKernel(RunLaunch launch, uint32_t tiles) {
  const Tile<Unit> tile(launch, tiles);
  Unit units[kUnitsPerThread];
#pragma unroll
  for (uint32_t i = 0; i < kUnitsPerThread; ++i) {
    const uint32_t unit = tile.first_unit + i * kThreads;
    units[i] = Unit{};
    if (unit >= launch.geometry.units_per_plane) continue;
    const uint8_t* engine = EngineUnit(launch.geometry, tile.plane, tile.pages, tile.tokens, unit);
    if (engine != nullptr) units[i] = __ldcs(reinterpret_cast<const Unit*>(engine));
  }
#pragma unroll
  for (uint32_t i = 0; i < kUnitsPerThread; ++i) {
    const uint32_t unit = tile.first_unit + i * kThreads;
    if (unit < launch.geometry.units_per_plane) tile.block_plane[unit] = units[i];
  }
}

template <typename Unit>
__global__ void __launch_bounds__(kThreads) ScatterKernel(RunLaunch launch, uint32_t tiles) {
  const Tile<Unit> tile(launch, tiles);
  Unit units[kUnitsPerThread];
  uint8_t* engine[kUnitsPerThread];
#pragma unroll
  for (uint32_t i = 0; i < kUnitsPerThread; ++i) {
    const uint32_t unit = tile.first_unit + i * kThreads;
    engine[i] = unit < launch.geometry.units_per_plane
                    ? EngineUnit(launch.geometry, tile.plane, tile.pages, tile.tokens, unit)
                    : nullptr;
    if (engine[i] != nullptr) units[i] = __ldcs(tile.block_plane + unit);
  }
#pragma unroll
  for (uint32_t i = 0; i < kUnitsPerThread; ++i) {
    if (engine[i] != nullptr) *reinterpret_cast<Unit*>(engine[i]) = units[i];
  }
}

template <typename Unit>
GpuCode Launch(const RunLaunch& launch, bool gather, GpuStream stream) {
  const uint32_t tiles = (launch.geometry.units_per_plane - 1) / kUnitsPerTile + 1;
  const uint64_t grid_x = static_cast<uint64_t>(launch.block_count) * tiles;
  if (grid_x > 0x7FFFFFFFu || launch.plane_count > 65535u) return kGpuInvalidValue;
  const dim3 grid(static_cast<uint32_t>(grid_x), launch.plane_count);
  if (gather) {
    GatherKernel<Unit><<<grid, kThreads, 0, stream>>>(launch, tiles);
  } else {
    ScatterKernel<Unit><<<grid, kThreads, 0, stream>>>(launch, tiles);
  }
  return cudaGetLastError();
}

GpuCode LaunchByUnit(const RunLaunch& launch, bool gather, GpuStream stream) {
  if (launch.block_count == 0 || launch.plane_count == 0) return kGpuOk;
  switch (launch.geometry.unit_bytes) {
    case 16:
      return Launch<uint4>(launch, gather, stream);
    case 8:
      return Launch<uint2>(launch, gather, stream);
    case 4:
      return Launch<uint32_t>(launch, gather, stream);
    case 2:
      return Launch<uint16_t>(launch, gather, stream);
    default:
      return Launch<uint8_t>(launch, gather, stream);
  }
}

}  // namespace

GpuCode LaunchGather(const RunLaunch& launch, GpuStream stream) {
  return LaunchByUnit(launch, true, stream);
}
GpuCode LaunchScatter(const RunLaunch& launch, GpuStream stream) {
  return LaunchByUnit(launch, false, stream);
}

}  // namespace reprise::kernels
