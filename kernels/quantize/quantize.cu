#include <cuda_runtime_api.h>

#include "kernels/quantize/quantize_launch.h"
#include "kernels/quantize/quantize_tuning.h"

namespace reprise::kernels {
namespace {

using quantize_tuning::kDecodeItems;
using quantize_tuning::kItemThreads;
using quantize_tuning::kScaledHeld;
using quantize_tuning::kScaledThreads;

constexpr uint32_t kWarp = 32;

// The largest of all threads' values, in all of them.
__device__ float LargestOfBlock(float value) {
  __shared__ float of_warp[kScaledThreads / kWarp];
  for (uint32_t distance = kWarp / 2; distance > 0; distance /= 2) {
    value = fmaxf(value, __shfl_xor_sync(0xFFFFFFFFu, value, distance));
  }
  if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = value;
  __syncthreads();
  for (uint32_t warp = 0; warp < kScaledThreads / kWarp; ++warp)
    value = fmaxf(value, of_warp[warp]);
  return value;
}

// Grid x: block * heads + head; grid y: the plane.
template <typename Element, uint32_t kVector>
__global__ void __launch_bounds__(kScaledThreads) EncodeScaledKernel(QuantLaunch launch) {
  const uint32_t block = blockIdx.x / launch.shape.heads;
  const uint32_t head = blockIdx.x - block * launch.shape.heads;
  const PlaneWork work = WorkOn(launch, block, launch.run.first_plane + blockIdx.y);
  const float largest = LargestOfBlock(
      LargestOfThread<Element, kVector>(launch, work, head, threadIdx.x, kScaledThreads));
  EncodeScaledThread<Element, kVector>(launch, work, head, largest, threadIdx.x, kScaledThreads);
}

// The same where a thread's share fits its registers: the engine is read once.
template <typename Element, uint32_t kVector, uint32_t kHeld>
__global__ void __launch_bounds__(kScaledThreads) EncodeHeldKernel(QuantLaunch launch) {
  const uint32_t block = blockIdx.x / launch.shape.heads;
  const uint32_t head = blockIdx.x - block * launch.shape.heads;
  const PlaneWork work = WorkOn(launch, block, launch.run.first_plane + blockIdx.y);
  HeldShare<Element, kVector, kHeld> share;
  const float largest = LargestOfBlock(share.Load(launch, work, head, threadIdx.x, kScaledThreads));
  EncodeHeldThread(launch, work, head, largest, threadIdx.x, kScaledThreads, share);
}

// Grid x: block * tiles + tile of items; grid y: the plane.
template <typename Element, uint32_t kVector>
__global__ void __launch_bounds__(kItemThreads)
    EncodeGroupedKernel(QuantLaunch launch, uint32_t tiles) {
  const uint32_t block = blockIdx.x / tiles;
  const uint32_t item = (blockIdx.x - block * tiles) * kItemThreads + threadIdx.x;
  const PlaneWork work = WorkOn(launch, block, launch.run.first_plane + blockIdx.y);
  if (work.per_channel) {
    if (item < KeyItems(launch)) EncodeKeyItem<Element, kVector>(launch, work, item);
  } else {
    if (item < TokenItems(launch)) EncodeTokenItem<Element, kVector>(launch, work, item);
  }
}

template <typename Element, uint32_t kVector, bool kGrouped>
__global__ void __launch_bounds__(kItemThreads) DecodeKernel(QuantLaunch launch, uint32_t tiles) {
  const uint32_t block = blockIdx.x / tiles;
  const uint32_t first = (blockIdx.x - block * tiles) * kItemThreads * kDecodeItems + threadIdx.x;
  const PlaneWork work = WorkOn(launch, block, launch.run.first_plane + blockIdx.y);
  CodedItem<kVector, kGrouped> coded[kDecodeItems];
#pragma unroll
  for (uint32_t i = 0; i < kDecodeItems; ++i) {
    const uint32_t item = first + i * kItemThreads;
    if (item < DecodeItems(launch)) coded[i] = LoadItem<kVector, kGrouped>(launch, work, item);
  }
#pragma unroll
  for (uint32_t i = 0; i < kDecodeItems; ++i) StoreItem<Element>(launch, coded[i]);
}

uint32_t Tiles(uint32_t items, uint32_t items_per_tile) {
  return (items - 1) / items_per_tile + 1;
}

template <typename Element, uint32_t kVector>
void LaunchScaledEncode(const QuantLaunch& launch, dim3 grid, GpuStream stream) {
  const uint32_t vectors = launch.shape.tokens * launch.row_vectors.divisor();
  if (vectors <= kScaledHeld / 2 * kScaledThreads) {
    EncodeHeldKernel<Element, kVector, kScaledHeld / 2>
        <<<grid, kScaledThreads, 0, stream>>>(launch);
  } else if (vectors <= kScaledHeld * kScaledThreads) {
    EncodeHeldKernel<Element, kVector, kScaledHeld><<<grid, kScaledThreads, 0, stream>>>(launch);
  } else {
    EncodeScaledKernel<Element, kVector><<<grid, kScaledThreads, 0, stream>>>(launch);
  }
}

template <typename Element, uint32_t kVector>
GpuCode Launch(const QuantLaunch& launch, bool encode, GpuStream stream) {
  const bool grouped = launch.shape.codec == Codec::kInt4;
  const uint32_t group_items =
      KeyItems(launch) > TokenItems(launch) ? KeyItems(launch) : TokenItems(launch);
  const uint32_t tiles = !encode   ? Tiles(DecodeItems(launch), kItemThreads * kDecodeItems)
                         : grouped ? Tiles(group_items, kItemThreads)
                                   : launch.shape.heads;
  const uint64_t grid_x = static_cast<uint64_t>(launch.run.block_count) * tiles;
  if (grid_x > 0x7FFFFFFFu || launch.run.plane_count > 65535u) return kGpuInvalidValue;
  const dim3 grid(static_cast<uint32_t>(grid_x), launch.run.plane_count);
  if (!encode && grouped) {
    DecodeKernel<Element, kVector, true><<<grid, kItemThreads, 0, stream>>>(launch, tiles);
  } else if (!encode) {
    DecodeKernel<Element, kVector, false><<<grid, kItemThreads, 0, stream>>>(launch, tiles);
  } else if (grouped) {
    EncodeGroupedKernel<Element, kVector><<<grid, kItemThreads, 0, stream>>>(launch, tiles);
  } else {
    LaunchScaledEncode<Element, kVector>(launch, grid, stream);
  }
  return cudaGetLastError();
}

template <typename Element>
GpuCode LaunchFor(const QuantLaunch& launch, bool encode, GpuStream stream) {
  constexpr uint32_t kWide = 16 / sizeof(typename Element::Bits);
  return launch.wide ? Launch<Element, kWide>(launch, encode, stream)
                     : Launch<Element, kNarrowVector>(launch, encode, stream);
}

GpuCode LaunchByElement(const QuantLaunch& launch, bool encode, GpuStream stream) {
  if (launch.run.block_count == 0 || launch.run.plane_count == 0) return kGpuOk;
  switch (launch.shape.element) {
    case ElementType::kF32:
      return LaunchFor<quant::F32>(launch, encode, stream);
    case ElementType::kF16:
      return LaunchFor<quant::F16>(launch, encode, stream);
    case ElementType::kBf16:
      return LaunchFor<quant::Bf16>(launch, encode, stream);
  }
  return kGpuInvalidValue;
}

}  // namespace

GpuCode LaunchEncode(const QuantLaunch& launch, GpuStream stream) {
  return LaunchByElement(launch, true, stream);
}
GpuCode LaunchDecode(const QuantLaunch& launch, GpuStream stream) {
  return LaunchByElement(launch, false, stream);
}

}  // namespace reprise::kernels
