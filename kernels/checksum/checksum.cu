#include <cuda_runtime_api.h>

#include "kernels/checksum/checksum_cuda.h"
#include "kernels/checksum/checksum_geometry.h"
#include "kernels/checksum/checksum_tuning.h"
#include "kernels/checksum/xxh3_hd.h"

namespace reprise::kernels {
namespace {

using xxh3::Hash128;
using xxh3::kQuadThreads;
using xxh3::Pair64;

// 16 bytes at a time, and passing through the caches once. For inputs whose address and length are
// multiples of 16.
struct LoadAligned {
  const uint8_t* input;
  __device__ __forceinline__ Pair64 operator()(uint64_t at) const {
    const uint4 words = __ldcs(reinterpret_cast<const uint4*>(input + at));
    return {words.x | static_cast<uint64_t>(words.y) << 32, words.z | static_cast<uint64_t>(words.w)
                                                                          << 32};
  }
};

// 8 bytes at a time, coherent: for scratch, which the same kernel wrote.
struct LoadWords {
  const uint8_t* input;
  __device__ __forceinline__ Pair64 operator()(uint64_t at) const {
    const auto* words = reinterpret_cast<const uint64_t*>(input + at);
    return {words[0], words[1]};
  }
};

struct LoadBytes {
  const uint8_t* input;
  __device__ __forceinline__ Pair64 operator()(uint64_t at) const {
    return {xxh3::Read64(input + at), xxh3::Read64(input + at + 8)};
  }
};

// The hash of `bytes` bytes at load.input, in all four threads of the calling quad.
template <uint32_t kLoads, typename Load>
__device__ __forceinline__ Hash128 HashByQuad(const Load& load, uint64_t bytes) {
  if (bytes <= xxh3::kShortBytesMax)
    return xxh3::HashShort(load.input, static_cast<uint32_t>(bytes));
  const uint32_t p = threadIdx.x % kQuadThreads;
  Hash128 terms = xxh3::QuadTerms(xxh3::SumQuad<kLoads>(load, bytes, p), p);
  const uint32_t quad = 0xFu << (threadIdx.x % 32 / kQuadThreads * kQuadThreads);
  for (int distance = 1; distance < static_cast<int>(kQuadThreads); distance *= 2) {
    terms.low += __shfl_xor_sync(quad, terms.low, distance);
    terms.high += __shfl_xor_sync(quad, terms.high, distance);
  }
  return xxh3::FinishLong(terms.low, terms.high, bytes);
}

// One quad per chunk of any block.
template <typename Load>
__global__ void __launch_bounds__(checksum_tuning::kChunkThreads)
    HashChunks(ChecksumGeometry geometry, const uint8_t* const* block_table, uint64_t quads,
               uint8_t* scratch) {
  const uint64_t quad =
      (static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kQuadThreads;
  if (quad >= quads) return;
  const uint64_t block = quad / geometry.Chunks();
  const ChunkPlace chunk = PlaceChunk(geometry, quad - block * geometry.Chunks());
  if (!chunk.exists) return;
  const Hash128 hash =
      HashByQuad<checksum_tuning::kLoadsInFlight>(Load{block_table[block] + chunk.at}, chunk.bytes);
  if (threadIdx.x % kQuadThreads != 0) return;
  uint8_t* digest = scratch + block * geometry.block_scratch_bytes + chunk.digest;
  xxh3::StoreCanonical(hash, digest);
  if (chunk.last_of_section) {
    *reinterpret_cast<uint64_t*>(digest + kChecksumDigestBytes) =
        geometry.SectionBytes(chunk.section);
  }
}

// One thread block per block: the digests of its sections, a quad each, and then its own.
__global__ void __launch_bounds__(checksum_tuning::kJoinThreads)
    JoinDigests(ChecksumGeometry geometry, uint8_t* scratch, uint8_t* digests) {
  uint8_t* own = scratch + blockIdx.x * geometry.block_scratch_bytes;
  uint8_t* section_digests = own + geometry.JoinScratch();
  const bool leader = threadIdx.x % kQuadThreads == 0;
  for (uint32_t section = threadIdx.x / kQuadThreads; section < geometry.sections;
       section += blockDim.x / kQuadThreads) {
    const Hash128 hash = HashByQuad<1>(LoadWords{own + geometry.SectionScratch(section)},
                                       SectionInputBytes(geometry, section));
    if (leader) xxh3::StoreCanonical(hash, section_digests + section * kChecksumDigestBytes);
  }
  const uint64_t digest_bytes = static_cast<uint64_t>(geometry.sections) * kChecksumDigestBytes;
  if (threadIdx.x == 0)
    *reinterpret_cast<uint64_t*>(section_digests + digest_bytes) = geometry.block_bytes;
  __syncthreads();
  if (threadIdx.x >= kQuadThreads) return;
  const Hash128 hash = HashByQuad<1>(LoadWords{section_digests}, digest_bytes + 8);
  if (leader) xxh3::StoreCanonical(hash, digests + blockIdx.x * kChecksumDigestBytes);
}

}  // namespace

GpuCode ChecksumBlocksOnGpu(const ChecksumBatch& batch, GpuStream stream) {
  if (batch.block_count == 0) return kGpuOk;
  if (batch.block_bytes == 0 || batch.section_bytes == 0) return kGpuInvalidValue;
  const ChecksumGeometry geometry = MakeChecksumGeometry(batch.block_bytes, batch.section_bytes);
  const uint64_t quads = batch.block_count * geometry.Chunks();
  const uint64_t grid = (quads * kQuadThreads - 1) / checksum_tuning::kChunkThreads + 1;
  if (grid > 0x7FFFFFFFu) return kGpuInvalidValue;
  const bool wide =
      batch.aligned && batch.block_bytes % 16 == 0 && geometry.section_bytes % 16 == 0;
  if (wide) {
    HashChunks<LoadAligned>
        <<<static_cast<uint32_t>(grid), checksum_tuning::kChunkThreads, 0, stream>>>(
            geometry, batch.block_table, quads, batch.scratch);
  } else {
    HashChunks<LoadBytes>
        <<<static_cast<uint32_t>(grid), checksum_tuning::kChunkThreads, 0, stream>>>(
            geometry, batch.block_table, quads, batch.scratch);
  }
  if (cudaError_t code = cudaGetLastError(); code != cudaSuccess) return code;
  JoinDigests<<<batch.block_count, checksum_tuning::kJoinThreads, 0, stream>>>(
      geometry, batch.scratch, batch.digests);
  return cudaGetLastError();
}

}  // namespace reprise::kernels
