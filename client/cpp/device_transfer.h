// What DeviceSink and DeviceSource share: the caller's blocks as pages of a plan on a GPU, and the
// workspace in which one transfer moves them.
//
// One buffer per block is paged memory too, each block a page of its own, so that both forms are
// moved by the same kernels, any number of blocks in one launch. Under a codec these encode and
// decode on the way, and everything else sees encoded blocks alone.
//
// Invariants: the caller's memory is not touched before its own stream has passed `after`; after
// Finish, or the destructor, nothing is under way. Thread safety: used by one thread at a time,
// whose current device is left as it was.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cpp/caller_memory.h"
#include "client/cpp/device_workspace.h"
#include "kernels/block_copy/block_copy_cuda.h"
#include "kernels/runtime/device.h"

namespace reprise::client {

class DeviceTransfer {
 public:
  DeviceTransfer(const BlockTransfer& transfer, DeviceWorkspaces& workspaces);
  ~DeviceTransfer();
  DeviceTransfer(const DeviceTransfer&) = delete;
  DeviceTransfer& operator=(const DeviceTransfer&) = delete;

  // Gets the workspace. To be called first; after an error nothing else.
  absl::Status Prepare();
  // Waits until nothing is under way, and gives the workspace back. Calls after the first do
  // nothing.
  absl::Status Finish();

  // The thread's device is the transfer's while this lives.
  absl::StatusOr<kernels::DeviceScope> Enter() const {
    return kernels::DeviceScope::Create(transfer_.memory->device);
  }
  // AwaitStream, once, until the transfer's deadline.
  absl::Status AwaitCaller();

  int device() const { return transfer_.memory->device; }
  DeviceWorkspace& workspace() const { return *workspace_; }
  const BlockLayout& layout() const { return *transfer_.layout; }
  uint32_t launch_blocks() const { return launch_blocks_; }
  uint32_t group_blocks() const { return group_blocks_; }
  // Staging of groups is there. REQUIRES: nothing is under way, the first time.
  absl::Status HaveStaging();
  uint8_t* HostSlot(uint32_t group, uint32_t at) const {
    return workspace_->HostGroup(group) + at * layout().block_bytes;
  }
  uint8_t* DeviceSlot(uint32_t group, uint32_t at) const {
    return workspace_->DeviceGroup(group) + at * layout().block_bytes;
  }
  // Between blocks in pinned host memory and the device staging of a group, on the stream beside
  // the kernels'.
  absl::Status CopyUp(uint32_t group, std::span<const std::span<const uint8_t>> blocks);
  absl::Status CopyDown(uint32_t group, std::span<const std::span<uint8_t>> blocks);

  // INTERNAL unless a lane's block is one of the transfer's, where kernels and copies can take it.
  absl::Status CheckBlock(std::span<const uint8_t> block) const;

  // Puts the address of a block, and the pages of the caller's block `block`, into the tables of a
  // region as its entry `at`. REQUIRES: no launch that reads that entry is under way.
  void Tabulate(uint32_t region, uint32_t at, uint8_t* address, uint32_t block);
  // Launches over the first `blocks` entries of a region's tables: from the caller's memory to
  // blocks as the shard has them, and back.
  absl::Status Gather(uint32_t region, uint32_t blocks);
  absl::Status Scatter(uint32_t region, uint32_t blocks);
  absl::Status Checksum(uint32_t region, uint32_t blocks);
  // What Checksum found. REQUIRES: it is over.
  Checksum128 Digest(uint32_t region, uint32_t at) const;

 private:
  LaunchTables TablesOf(uint32_t region) const {
    return workspace_->Tables(
        region, region == DeviceWorkspace::kDirectRegion ? launch_blocks_ : group_blocks_);
  }
  kernels::BlockRun RunOf(uint32_t region, uint32_t blocks) const;

  const BlockTransfer transfer_;
  DeviceWorkspaces& workspaces_;
  WorkspaceLoan workspace_;
  std::shared_ptr<const kernels::GpuPlan> plan_;
  uint32_t pages_per_block_ = 1;
  uint32_t launch_blocks_ = 1;
  uint32_t group_blocks_ = 1;
  bool caller_done_ = false;
};

}  // namespace reprise::client
