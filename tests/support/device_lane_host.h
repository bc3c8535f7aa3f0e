// A lane host whose slots are in "device memory" or in a "file": another host's slots under
// addresses that no CPU has mapped, so that whoever touches them instead of copying dies.
//
// Thread safety: as the host that it stands before.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "cluster/lanes/lane.h"
#include "proto/types/status_macros.h"

namespace reprise::testing {

class DeviceLaneHost final : public lanes::LaneHost {
 public:
  // REQUIRES: `memory` outlives this.
  explicit DeviceLaneHost(lanes::LaneHost& memory,
                          lanes::MemoryKind kind = lanes::MemoryKind::kDevice)
      : memory_(memory), kind_(kind) {}

  absl::StatusOr<std::vector<lanes::PinnedBytes>> OpenRead(AttachmentId attachment, LeaseId lease,
                                                           uint32_t first,
                                                           uint32_t blocks) override {
    REPRISE_ASSIGN_OR_RETURN(std::vector<lanes::PinnedBytes> opened,
                             memory_.OpenRead(attachment, lease, first, blocks));
    for (lanes::PinnedBytes& block : opened) {
      block.bytes = {Flip(block.bytes.data()), block.bytes.size()};
      block.memory = kind_;
    }
    return opened;
  }
  absl::StatusOr<lanes::PinnedSlot> OpenWrite(AttachmentId attachment, ReservationId reservation,
                                              uint32_t block) override {
    REPRISE_ASSIGN_OR_RETURN(lanes::PinnedSlot slot,
                             memory_.OpenWrite(attachment, reservation, block));
    slot.bytes = {Flip(slot.bytes.data()), slot.bytes.size()};
    slot.memory = kind_;
    return slot;
  }
  absl::Status Written(AttachmentId attachment, ReservationId reservation, uint32_t block,
                       uint64_t bytes) override {
    return memory_.Written(attachment, reservation, block, bytes);
  }
  absl::Status CopyToHost(std::span<const uint8_t> device, std::span<uint8_t> host) override {
    std::memcpy(host.data(), Flip(device.data()), host.size());
    return absl::OkStatus();
  }
  absl::Status CopyToDevice(std::span<const uint8_t> host, std::span<uint8_t> device) override {
    std::memcpy(Flip(device.data()), host.data(), host.size());
    return absl::OkStatus();
  }

 private:
  static uint8_t* Flip(const uint8_t* address) {
    return reinterpret_cast<uint8_t*>(reinterpret_cast<uintptr_t>(address) ^ (uintptr_t{1} << 62));
  }

  lanes::LaneHost& memory_;
  const lanes::MemoryKind kind_;
};

}  // namespace reprise::testing
