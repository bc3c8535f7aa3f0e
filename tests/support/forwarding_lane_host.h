// A lane host that stands before another one and passes everything on: what tests derive from to
// change one answer.
//
// Thread safety: as the host that it stands before.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cluster/lanes/lane.h"

namespace reprise::testing {

class ForwardingLaneHost : public lanes::LaneHost {
 public:
  // REQUIRES: `host` outlives this.
  explicit ForwardingLaneHost(lanes::LaneHost& host) : host_(host) {}

  absl::StatusOr<std::vector<lanes::PinnedBytes>> OpenRead(AttachmentId attachment, LeaseId lease,
                                                           uint32_t first,
                                                           uint32_t blocks) override {
    return host_.OpenRead(attachment, lease, first, blocks);
  }
  void ReadOut(uint64_t blocks, uint64_t bytes) override { host_.ReadOut(blocks, bytes); }
  absl::StatusOr<lanes::PinnedSlot> OpenWrite(AttachmentId attachment, ReservationId reservation,
                                              uint32_t block) override {
    return host_.OpenWrite(attachment, reservation, block);
  }
  absl::Status Written(AttachmentId attachment, ReservationId reservation, uint32_t block,
                       uint64_t bytes) override {
    return host_.Written(attachment, reservation, block, bytes);
  }
  absl::Status CopyToHost(std::span<const uint8_t> device, std::span<uint8_t> host) override {
    return host_.CopyToHost(device, host);
  }
  absl::Status CopyToDevice(std::span<const uint8_t> host, std::span<uint8_t> device) override {
    return host_.CopyToDevice(host, device);
  }

 private:
  lanes::LaneHost& host_;
};

}  // namespace reprise::testing
