#include "client/cpp/device_transfer.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "client/cpp/device_memory.h"
#include "kernels/checksum/checksum_cuda.h"
#include "kernels/quantize/quantize_cuda.h"
#include "kernels/runtime/gpu_status.h"
#include "proto/types/status_macros.h"

namespace reprise::client {
namespace {

// Calls copy(first, bytes) for each piece of `blocks` that lies together in memory: slots of one
// extent often do, and a copy costs the host as much for many small blocks as for one.
template <typename Span, typename Copy>
absl::Status ForEachPiece(std::span<const Span> blocks, const Copy& copy) {
  for (size_t first = 0, end = 0; first < blocks.size(); first = end) {
    uint64_t bytes = 0;
    do {
      bytes += blocks[end++].size();
    } while (end < blocks.size() && blocks[end].data() == blocks[first].data() + bytes);
    REPRISE_RETURN_IF_ERROR(copy(static_cast<uint32_t>(first), bytes));
  }
  return absl::OkStatus();
}

}  // namespace

DeviceTransfer::DeviceTransfer(const BlockTransfer& transfer, DeviceWorkspaces& workspaces)
    : transfer_(transfer), workspaces_(workspaces) {}

DeviceTransfer::~DeviceTransfer() {
  (void)Finish();
}

absl::Status DeviceTransfer::Prepare() {
  const CallerMemory& memory = *transfer_.memory;
  REPRISE_ASSIGN_OR_RETURN(const auto scope, Enter());
  if (memory.plan != nullptr) {
    plan_ = memory.gpu_plan;
    pages_per_block_ = memory.plan->PagesPerBlock();
  } else {
    REPRISE_ASSIGN_OR_RETURN(
        plan_, workspaces_.WholeBlocksPlan(memory.device, layout().block_bytes, transfer_.codec));
  }
  launch_blocks_ = DeviceWorkspace::LaunchBlocks(
      pages_per_block_,
      kernels::ChecksumScratchBytes(1, layout().block_bytes, layout().layer_bytes));
  group_blocks_ = DeviceWorkspace::GroupBlocks(layout().block_bytes, launch_blocks_);
  REPRISE_ASSIGN_OR_RETURN(workspace_, workspaces_.Get(memory.device, transfer_.deadline));
  return absl::OkStatus();
}

absl::Status DeviceTransfer::Finish() {
  if (!workspace_) return absl::OkStatus();
  const auto scope = Enter();
  const absl::Status done = scope.ok() ? workspace_->Synchronize() : scope.status();
  workspace_.Return(/*broken=*/!done.ok());
  return done;
}

absl::Status DeviceTransfer::AwaitCaller() {
  if (caller_done_) return absl::OkStatus();
  REPRISE_RETURN_IF_ERROR(AwaitStream(*transfer_.memory, transfer_.deadline));
  caller_done_ = true;
  return absl::OkStatus();
}

absl::Status DeviceTransfer::HaveStaging() {
  return workspace_->HaveStaging(group_blocks_ * layout().block_bytes);
}

absl::Status DeviceTransfer::CopyUp(uint32_t group,
                                    std::span<const std::span<const uint8_t>> blocks) {
  return ForEachPiece(blocks, [&](uint32_t first, uint64_t bytes) {
    return kernels::CopyAsync(DeviceSlot(group, first), blocks[first].data(), bytes,
                              workspace_->copies());
  });
}

absl::Status DeviceTransfer::CopyDown(uint32_t group, std::span<const std::span<uint8_t>> blocks) {
  return ForEachPiece(blocks, [&](uint32_t first, uint64_t bytes) {
    return kernels::CopyAsync(blocks[first].data(), DeviceSlot(group, first), bytes,
                              workspace_->copies());
  });
}

absl::Status DeviceTransfer::CheckBlock(std::span<const uint8_t> block) const {
  if (block.size() == layout().block_bytes &&
      reinterpret_cast<uintptr_t>(block.data()) % limits::kRowAlignBytes == 0) {
    return absl::OkStatus();
  }
  return absl::InternalError(absl::StrCat("a lane has a block of ", block.size(),
                                          " bytes instead of ", layout().block_bytes,
                                          " aligned to ", limits::kRowAlignBytes));
}

void DeviceTransfer::Tabulate(uint32_t region, uint32_t at, uint8_t* address, uint32_t block) {
  const LaunchTables tables = TablesOf(region);
  tables.blocks[at] = address;
  const CallerMemory& memory = *transfer_.memory;
  int64_t* pages = tables.pages + size_t{at} * pages_per_block_;
  if (memory.plan == nullptr) {
    *pages = DeviceWorkspaces::PageOfWholeBlock(memory.buffers[block]);
  } else {
    const std::span<const int64_t> own = memory.PagesOf(block);
    std::copy(own.begin(), own.end(), pages);
  }
}

kernels::BlockRun DeviceTransfer::RunOf(uint32_t region, uint32_t blocks) const {
  const LaunchTables tables = TablesOf(region);
  kernels::BlockRun run;
  run.page_table = tables.pages;
  run.block_table = tables.blocks;
  run.block_count = blocks;
  return run;
}

absl::Status DeviceTransfer::Gather(uint32_t region, uint32_t blocks) {
  const kernels::BlockRun run = RunOf(region, blocks);
  if (transfer_.codec == nullptr) return kernels::GatherRun(*plan_, run, workspace_->stream());
  return kernels::EncodeRun(*plan_, *transfer_.codec, run, workspace_->stream());
}

absl::Status DeviceTransfer::Scatter(uint32_t region, uint32_t blocks) {
  const kernels::BlockRun run = RunOf(region, blocks);
  if (transfer_.codec == nullptr) return kernels::ScatterRun(*plan_, run, workspace_->stream());
  return kernels::DecodeRun(*plan_, *transfer_.codec, run, workspace_->stream());
}

absl::Status DeviceTransfer::Checksum(uint32_t region, uint32_t blocks) {
  const LaunchTables tables = TablesOf(region);
  const kernels::ChecksumBatch batch{.block_table = tables.blocks,
                                     .block_count = blocks,
                                     .block_bytes = layout().block_bytes,
                                     .section_bytes = layout().layer_bytes,
                                     .aligned = true,
                                     .scratch = workspace_->scratch(),
                                     .digests = tables.digests};
  return kernels::GpuStatus(kernels::ChecksumBlocksOnGpu(batch, workspace_->stream()),
                            absl::StrCat("checksumming ", blocks, " blocks"));
}

Checksum128 DeviceTransfer::Digest(uint32_t region, uint32_t at) const {
  Checksum128 digest;
  std::memcpy(digest.bytes.data(), TablesOf(region).digests + at * kernels::kChecksumDigestBytes,
              kernels::kChecksumDigestBytes);
  return digest;
}

}  // namespace reprise::client
