// Puts blocks into the caller's memory on a GPU, whole and verified: what VerifyingSink is for host
// memory.
//
// Blocks that a lane has in device memory are checksummed there and scattered, one launch each for
// all of a call. Blocks in pinned host memory are copied up by the copy engine in groups, and each
// group is checksummed and scattered while the next one is copied. Other host bytes are checksummed
// by the CPU in pinned staging; groups of them are copied up and scattered while the lane goes on
// filling the next ones, so that neither waits for the other.
//
// Invariants: no byte reaches the caller's memory that was not verified. Blocks in device memory
// are read twice for that, and looked at once more when that took so long that the shard may have
// stopped holding them still. `placed` is called for
// every block that is in place, in order, with nothing between the GPU and it. Thread safety: used
// by one thread at a time.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "client/cpp/caller_memory.h"
#include "client/cpp/device_transfer.h"
#include "client/cpp/device_workspace.h"
#include "cluster/lanes/lane.h"
#include "proto/types/checksum128.h"
#include "proto/types/clock.h"

namespace reprise::client {

class DeviceSink final : public lanes::BlockSink {
 public:
  struct Callbacks {
    // Block i is verified and on its way; its status ends the read, not the block.
    std::function<absl::Status(uint32_t)> verified;
    // Block i is in place.
    std::function<void(uint32_t)> placed;
  };

  // `checksums`: one per block of the call. transfer.staging is not used.
  DeviceSink(const BlockTransfer& transfer, DeviceWorkspaces& workspaces,
             std::span<const Checksum128> checksums, Callbacks callbacks,
             const Clock& clock = MonotonicClock());

  // REQUIRES: called before a lane has the sink. After an error no lane gets it.
  absl::Status Prepare();
  // Puts what is verified in place. REQUIRES: called when the lane is done with the sink, however
  // it ended. An error: the GPU failed, or the caller's stream was late, and what was not `placed`
  // counts for nothing.
  absl::Status Finish();

  lanes::MemoryKind memory() const override { return lanes::MemoryKind::kDevice; }
  int device() const override { return device_.device(); }
  std::span<uint8_t> Buffer(uint32_t i) override;
  absl::Status Complete(uint32_t i) override;
  absl::Status Deliver(uint32_t i, std::span<const uint8_t> bytes) override;
  absl::Status DeliverDevice(uint32_t first,
                             std::span<const std::span<const uint8_t>> blocks) override;
  absl::Status DeliverPinned(uint32_t first,
                             std::span<const std::span<const uint8_t>> blocks) override;

 private:
  // Blocks [first, first + blocks) of the call, in the staging of one group.
  struct Group {
    uint32_t first = 0;
    uint32_t blocks = 0;
    bool under_way = false;  // to where they belong
  };

  absl::Status Staged(uint32_t i, const Checksum128& found);
  absl::Status Verify(uint32_t i, const Checksum128& found) const {
    return CheckChecksum(transfer_.first + i, found, checksums_[i]);
  }
  absl::Status PlaceDirect(uint32_t first, std::span<const std::span<const uint8_t>> blocks);
  // How many of the first `count` blocks of a region are those of the call from `first` on.
  uint32_t Good(uint32_t region, uint32_t first, uint32_t count) const;
  absl::Status CheckOnceMore(uint32_t first, uint32_t count);
  // Copies blocks into the group that is to be filled, and has them checksummed.
  absl::Status Fetch(uint32_t first, std::span<const std::span<const uint8_t>> blocks);
  // Scatters what is good of a group that was fetched, once it is there.
  absl::Status PlaceFetched(uint32_t index);
  // Sends the group that is being filled on its way, if it has a block.
  absl::Status Send();
  // The group that is being filled has staging, and none of it is under way.
  absl::Status HaveRoom();
  // Waits until all that is under way is in place.
  absl::Status Settle();
  void Placed(Group& group);
  // Remembers a failure.
  absl::Status Failed(absl::Status status);

  const BlockTransfer transfer_;
  DeviceTransfer device_;
  const std::span<const Checksum128> checksums_;
  const Callbacks callbacks_;
  const Clock& clock_;
  const absl::Time begun_;  // before any block was opened
  std::array<Group, limits::kDeviceGroups> groups_;
  uint32_t filling_ = 0;          // index of the group that is filled
  absl::Status failure_;          // of the GPU, or of the caller's stream: nothing goes on after it
  std::vector<uint8_t> nowhere_;  // what a lane fills when there is no staging
};

}  // namespace reprise::client
