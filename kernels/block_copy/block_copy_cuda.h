// Block copy (block_copy.h) on a GPU: a whole run of blocks in one kernel.
//
// Bytes moved per block: row_data_bytes of every row read once, block_bytes written once (Gather),
// or the other way round (Scatter); nothing else but 8 bytes per page and block of tables. Bound:
// device memory bandwidth, reads plus writes; the link to the host where one side is pinned host
// memory, which the same kernels reach.
//
// Accesses are 16 bytes wide where every base pointer, stride and row of the plan is a multiple of
// 16, else as wide as they allow (8, 4, 2, 1), chosen when the plan is uploaded.
//
// Thread safety: a GpuPlan is immutable after Create. Calls only launch: tables, blocks and pages
// belong to the stream until it has passed.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/block_copy/block_copy.h"
#include "kernels/block_copy/block_copy_launch.h"
#include "kernels/runtime/memory.h"

namespace reprise::kernels {

// A plan whose planes are device memory, uploaded once per engine.
class GpuPlan {
 public:
  // INVALID_ARGUMENT PLAN_INVALID with PlanFault's sentence; UNAVAILABLE without the device.
  static absl::StatusOr<GpuPlan> Create(int device, const PagedPlan& plan);

  const CopyGeometry& geometry() const { return geometry_; }
  uint32_t planes() const { return planes_; }
  uint32_t planes_per_layer() const { return planes_per_layer_; }
  uint64_t block_bytes() const { return block_bytes_; }
  const PagedPlane* device_planes() const {
    return reinterpret_cast<const PagedPlane*>(uploaded_.data());
  }

 private:
  GpuPlan(const PagedPlan& plan, DeviceBuffer uploaded);

  CopyGeometry geometry_;
  uint32_t planes_ = 0;
  uint32_t planes_per_layer_ = 0;
  uint64_t block_bytes_ = 0;
  DeviceBuffer uploaded_;
};

// A run of blocks. Both tables are where the device reaches them (device or pinned host memory).
struct BlockRun {
  const int64_t* page_table = nullptr;    // PagesPerBlock() pages per block, block after block
  uint8_t* const* block_table = nullptr;  // the blocks' addresses, 16-byte aligned
  uint32_t block_count = 0;
  BlockPart part;  // part.tokens: of the last block; the others are whole
};

// Pages to blocks, and back. One launch on `stream`. INVALID_ARGUMENT when the run has more blocks
// than a grid holds (limits::kPromptBlocksMax is below that); nothing is launched for no blocks or
// no layers.
absl::Status GatherRun(const GpuPlan& plan, const BlockRun& run, GpuStream stream);
absl::Status ScatterRun(const GpuPlan& plan, const BlockRun& run, GpuStream stream);

// What both launch; also the base of the kernels that quantise on the way.
RunLaunch LaunchOf(const GpuPlan& plan, const BlockRun& run);

}  // namespace reprise::kernels
