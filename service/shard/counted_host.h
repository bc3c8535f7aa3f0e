// The engine as one lane sees it, with what that lane carried: blocks that went out whole, and
// blocks that came in whole. What was opened for a lane and went by another one is not its own.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cluster/lanes/lane.h"

namespace reprise::shard {

// What one lane moved since the start.
struct LaneUse {
  uint64_t blocks_read = 0;  // by callers
  uint64_t bytes_read = 0;
  uint64_t blocks_written = 0;
  uint64_t bytes_written = 0;

  // As Describe shows them: lane_view_blocks_read_total and so on.
  std::vector<std::pair<std::string, uint64_t>> Named(LaneKind lane) const;
};

class CountedHost final : public lanes::LaneHost {
 public:
  // REQUIRES: `host` outlives this.
  explicit CountedHost(lanes::LaneHost& host) : host_(host) {}

  absl::StatusOr<std::vector<lanes::PinnedBytes>> OpenRead(AttachmentId attachment, LeaseId lease,
                                                           uint32_t first,
                                                           uint32_t blocks) override {
    return host_.OpenRead(attachment, lease, first, blocks);
  }
  void ReadOut(uint64_t blocks, uint64_t bytes) override;
  absl::StatusOr<lanes::PinnedSlot> OpenWrite(AttachmentId attachment, ReservationId reservation,
                                              uint32_t block) override {
    return host_.OpenWrite(attachment, reservation, block);
  }
  absl::Status Written(AttachmentId attachment, ReservationId reservation, uint32_t block,
                       uint64_t bytes) override;
  absl::Status CopyToHost(std::span<const uint8_t> device, std::span<uint8_t> host) override {
    return host_.CopyToHost(device, host);
  }
  absl::Status CopyToDevice(std::span<const uint8_t> host, std::span<uint8_t> device) override {
    return host_.CopyToDevice(host, device);
  }

  LaneUse use() const;

 private:
  lanes::LaneHost& host_;
  std::atomic<uint64_t> blocks_read_{0}, bytes_read_{0}, blocks_written_{0}, bytes_written_{0};
};

}  // namespace reprise::shard
