// What the kernels compute, by the same REPRISE_HD functions, over addresses that were checked.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/block_copy/block_copy_launch.h"
#include "kernels/checksum/checksum_cuda.h"
#include "kernels/quantize/quantize.h"
#include "kernels/quantize/quantize_launch.h"
#include "tests/support/fake_gpu/fake_gpu_state.h"

namespace reprise::kernels {
namespace {

using testing::FakeGpu;

FakeGpu& Gpu() {
  return FakeGpu::Get();
}

template <typename T>
T* ReachAll(T* items, uint64_t count, const char* what) {
  return reinterpret_cast<T*>(Gpu().Reach(items, count * sizeof(T), what));
}

void CheckAligned(const void* memory, uint64_t to, const char* what) {
  if (reinterpret_cast<uintptr_t>(memory) % to != 0) {
    testing::Misused(std::string(what) + " is not aligned to " + std::to_string(to) + " bytes");
  }
}

// A launch's tables, as the kernel reaches them.
struct Tables {
  explicit Tables(const RunLaunch& launch)
      : planes(ReachAll(launch.planes, launch.first_plane + launch.plane_count, "plan")),
        pages(ReachAll(launch.page_table,
                       uint64_t{launch.block_count} * launch.geometry.pages_per_block,
                       "page table")),
        blocks(ReachAll(launch.block_table, launch.block_count, "block table")) {}

  const PagedPlane* planes;
  const int64_t* pages;
  uint8_t* const* blocks;
};

void CopyUnits(const RunLaunch& launch, bool gather) {
  const Tables tables(launch);
  const CopyGeometry& geometry = launch.geometry;
  for (uint32_t block = 0; block < launch.block_count; ++block) {
    const int64_t* pages = tables.pages + uint64_t{block} * geometry.pages_per_block;
    for (uint32_t i = 0; i < launch.plane_count; ++i) {
      const uint32_t index = launch.first_plane + i;
      const uint8_t* start = tables.blocks[block] + index * geometry.plane_bytes;
      CheckAligned(start, geometry.unit_bytes, "a block");
      uint8_t* const packed = Gpu().Reach(start, geometry.plane_bytes, "block");
      for (uint32_t unit = 0; unit < geometry.units_per_plane; ++unit) {
        uint8_t* const at = packed + uint64_t{unit} * geometry.unit_bytes;
        const uint8_t* engine =
            EngineUnit(geometry, tables.planes[index], pages, launch.TokensOf(block), unit);
        if (engine == nullptr) {
          if (gather) std::memset(at, 0, geometry.unit_bytes);
          continue;
        }
        uint8_t* const paged = Gpu().Reach(engine, geometry.unit_bytes, "engine page");
        std::memcpy(gather ? at : paged, gather ? paged : at, geometry.unit_bytes);
      }
    }
  }
}

// ---- The codecs

template <typename Element, uint32_t kVector>
void EncodePlane(const QuantLaunch& launch, const PlaneWork& work) {
  if (launch.shape.codec == Codec::kInt4) {
    const uint32_t items = work.per_channel ? KeyItems(launch) : TokenItems(launch);
    for (uint32_t item = 0; item < items; ++item) {
      if (work.per_channel) {
        EncodeKeyItem<Element, kVector>(launch, work, item);
      } else {
        EncodeTokenItem<Element, kVector>(launch, work, item);
      }
    }
    return;
  }
  for (uint32_t head = 0; head < launch.shape.heads; ++head) {
    const float largest = LargestOfThread<Element, kVector>(launch, work, head, 0, 1);
    EncodeScaledThread<Element, kVector>(launch, work, head, largest, 0, 1);
  }
}

template <typename Element, uint32_t kVector>
void QuantizePlane(const QuantLaunch& launch, const PlaneWork& work, bool encode) {
  if (encode) return EncodePlane<Element, kVector>(launch, work);
  for (uint32_t item = 0; item < DecodeItems(launch); ++item) {
    DecodeItem<Element, kVector>(launch, work, item);
  }
}

template <typename Element>
void QuantizePlaneOf(const QuantLaunch& launch, const PlaneWork& work, bool encode) {
  constexpr uint32_t kWide = 16 / sizeof(typename Element::Bits);
  launch.wide ? QuantizePlane<Element, kWide>(launch, work, encode)
              : QuantizePlane<Element, kNarrowVector>(launch, work, encode);
}

// The plane where the kernel reaches it, every row that it will touch checked. All of one plane is
// in one allocation.
PagedPlane ReachPlane(const QuantLaunch& launch, const PlaneWork& work) {
  PagedPlane reached = work.plane;
  for (uint32_t head = 0; head < launch.shape.heads; ++head) {
    for (uint32_t token = 0; token < work.tokens; ++token) {
      const uint8_t* row = EngineRow(launch, work, head, token);
      if (row == nullptr) continue;
      const uint8_t* at = Gpu().Reach(row, launch.run.geometry.row_data_bytes, "engine row");
      reached.base = work.plane.base + (at - row);
    }
  }
  return reached;
}

void Quantize(const QuantLaunch& launch, bool encode) {
  const Tables tables(launch.run);
  std::vector<uint8_t*> blocks(launch.run.block_count);
  for (uint32_t block = 0; block < launch.run.block_count; ++block) {
    CheckAligned(tables.blocks[block], 16, "an encoded block");
    blocks[block] =
        Gpu().Reach(tables.blocks[block], EncodedBlockBytes(launch.shape), "encoded block");
  }
  QuantLaunch reached = launch;
  reached.run.planes = tables.planes;
  reached.run.page_table = tables.pages;
  reached.run.block_table = blocks.data();
  for (uint32_t block = 0; block < launch.run.block_count; ++block) {
    for (uint32_t i = 0; i < launch.run.plane_count; ++i) {
      PlaneWork work = WorkOn(reached, block, launch.run.first_plane + i);
      work.plane = ReachPlane(reached, work);
      switch (launch.shape.element) {
        case ElementType::kF32:
          QuantizePlaneOf<quant::F32>(reached, work, encode);
          break;
        case ElementType::kF16:
          QuantizePlaneOf<quant::F16>(reached, work, encode);
          break;
        case ElementType::kBf16:
          QuantizePlaneOf<quant::Bf16>(reached, work, encode);
          break;
      }
    }
  }
}

bool Empty(const RunLaunch& launch) {
  return launch.block_count == 0 || launch.plane_count == 0;
}

void Checksum(const ChecksumBatch& batch) {
  const auto* blocks = ReachAll(batch.block_table, batch.block_count, "block table");
  const uint64_t scratch_bytes =
      ChecksumScratchBytes(batch.block_count, batch.block_bytes, batch.section_bytes);
  CheckAligned(batch.scratch, 16, "scratch");
  CheckAligned(batch.digests, 8, "the digests");
  std::memset(Gpu().Reach(batch.scratch, scratch_bytes, "scratch"), testing::kFakeGpuPoison,
              scratch_bytes);
  uint8_t* const digests =
      Gpu().Reach(batch.digests, uint64_t{batch.block_count} * kChecksumDigestBytes, "digests");
  for (uint32_t i = 0; i < batch.block_count; ++i) {
    if (batch.aligned) CheckAligned(blocks[i], 16, "a block of an aligned batch");
    ChecksumBlock(Gpu().Reach(blocks[i], batch.block_bytes, "block"), batch.block_bytes,
                  batch.section_bytes, digests + i * kChecksumDigestBytes);
  }
}

}  // namespace

GpuCode LaunchGather(const RunLaunch& launch, GpuStream stream) {
  if (Empty(launch)) return kGpuOk;
  return Gpu().Launch(stream, [launch] { CopyUnits(launch, true); });
}

GpuCode LaunchScatter(const RunLaunch& launch, GpuStream stream) {
  if (Empty(launch)) return kGpuOk;
  return Gpu().Launch(stream, [launch] { CopyUnits(launch, false); });
}

GpuCode LaunchEncode(const QuantLaunch& launch, GpuStream stream) {
  if (Empty(launch.run)) return kGpuOk;
  return Gpu().Launch(stream, [launch] { Quantize(launch, true); });
}

GpuCode LaunchDecode(const QuantLaunch& launch, GpuStream stream) {
  if (Empty(launch.run)) return kGpuOk;
  return Gpu().Launch(stream, [launch] { Quantize(launch, false); });
}

GpuCode ChecksumBlocksOnGpu(const ChecksumBatch& batch, GpuStream stream) {
  if (batch.block_count == 0) return kGpuOk;
  if (batch.block_bytes == 0 || batch.section_bytes == 0) return kGpuInvalidValue;
  return Gpu().Launch(stream, [batch] { Checksum(batch); });
}

}  // namespace reprise::kernels
