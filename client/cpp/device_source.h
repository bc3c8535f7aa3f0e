// Takes blocks from the caller's memory on a GPU: what ChecksummingSource is for host memory.
//
// Where a lane has its slots in device memory, the blocks of a call are gathered straight into them
// and checksummed there, one launch each. For others they are gathered and checksummed in groups:
// where the slots are pinned host memory, the copy engine takes a group there while the next one is
// gathered; for a lane that carries host bytes a group is copied down to pinned staging while the
// lane works on the one before.
//
// Invariants: a checksum is made from the very bytes that were gathered. Thread safety: used by one
// thread at a time.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cpp/caller_memory.h"
#include "client/cpp/device_transfer.h"
#include "client/cpp/device_workspace.h"
#include "cluster/lanes/lane.h"
#include "proto/types/checksum128.h"

namespace reprise::client {

class DeviceSource final : public lanes::BlockSource {
 public:
  // `blocks`: the caller's block for each block of the call. `check` is asked before each block and
  // may end the write. transfer.staging is not used.
  DeviceSource(const BlockTransfer& transfer, DeviceWorkspaces& workspaces,
               std::span<const uint32_t> blocks, std::function<absl::Status()> check);

  // REQUIRES: called before a lane has the source. After an error no lane gets it.
  absl::Status Prepare() { return device_.Prepare(); }
  // The caller's memory is not read any more. REQUIRES: called when the lane is done with the
  // source, however it ended.
  absl::Status Finish() { return device_.Finish(); }

  lanes::MemoryKind memory() const override { return lanes::MemoryKind::kDevice; }
  int device() const override { return device_.device(); }
  absl::StatusOr<std::span<const uint8_t>> Bytes(uint32_t i) override;
  absl::Status Fill(uint32_t i, std::span<uint8_t> slot) override;
  absl::Status FillDevice(uint32_t first, std::span<const std::span<uint8_t>> slots) override;
  absl::Status FillPinned(uint32_t first, std::span<const std::span<uint8_t>> slots) override;

  // One per block that was taken.
  std::span<const Checksum128> checksums() const { return checksums_; }

 private:
  static constexpr uint32_t kWindows = 2;
  static_assert(kWindows <= limits::kDeviceGroups);
  // Blocks [first, first + blocks) of the call, in the staging of the group of the same index.
  struct Window {
    uint32_t first = 0;
    uint32_t blocks = 0;
    bool there = false;  // else under way
    bool Has(uint32_t i) const { return i >= first && i - first < blocks; }
  };

  // Gathers blocks from `first` on into a window, and copies them down; returns before they are
  // there.
  absl::Status Begin(uint32_t window, uint32_t first);
  absl::Status FillDirect(uint32_t first, std::span<const std::span<uint8_t>> slots);
  // Gathers and checksums blocks from `first` on into the device staging of a group.
  absl::Status Collect(uint32_t group, uint32_t first, uint32_t count);
  // As Collect, and on to `slots`; returns before they are there.
  absl::Status SendDown(uint32_t group, uint32_t first, std::span<const std::span<uint8_t>> slots);
  absl::Status SendAllDown(uint32_t first, std::span<const std::span<uint8_t>> slots);
  // Of block i, those before it being noted.
  void Note(uint32_t i, const Checksum128& checksum);

  DeviceTransfer device_;
  const std::span<const uint32_t> blocks_;
  const std::function<absl::Status()> check_;
  std::vector<Checksum128> checksums_;
  std::array<Window, kWindows> windows_;
  uint32_t current_ = 0;  // window that the latest block was taken from
};

}  // namespace reprise::client
