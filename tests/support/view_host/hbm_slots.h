// A shard's hbm pool behind a view server: the pool's slots for a MemoryLaneHost, and its extents
// as the view lane shares them.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>

#include "cluster/lanes/view/extent_exporter.h"
#include "proto/types/status_macros.h"
#include "service/pool/hbm_pool.h"
#include "tests/support/memory_lane_host.h"

namespace reprise::testing {

class HbmSlots final : public lanes::ExtentExporter {
 public:
  // REQUIRES: `pool` outlives this. Slots are of `space`, all of one size.
  HbmSlots(shard::HbmPool& pool, KeySpaceId space) : pool_(pool), space_(space) {}

  HostSlot Allocate(uint64_t bytes) {
    const std::optional<shard::SlotRef> slot = pool_.Allocate(space_, bytes);
    REPRISE_CHECK(slot.has_value());
    return HostSlot({pool_.Address(*slot), bytes}, lanes::MemoryKind::kDevice);
  }

  std::optional<lanes::ExtentView> Export(const uint8_t* address) override {
    const std::optional<shard::ExtentPlace> place = pool_.Export(address);
    if (!place.has_value()) return std::nullopt;
    return lanes::ExtentView{.id = place->extent_id,
                             .offset_bytes = place->offset_bytes,
                             .extent_bytes = place->extent_bytes,
                             .memory = lanes::MemoryKind::kDevice,
                             .number = place->extent};
  }
  absl::StatusOr<lanes::DeviceHandle> Share(const lanes::ExtentView& extent,
                                            AttachmentId attachment) override {
    REPRISE_ASSIGN_OR_RETURN(const shard::HbmHandle handle, pool_.Share(extent.number, attachment));
    return lanes::DeviceHandle{.ipc = handle.ipc, .device_uuid = handle.device_uuid};
  }
  void Unshared(AttachmentId attachment) override {
    pool_.Unshared(attachment);
    ++unshared_;
  }

  uint64_t shares() const { return shares_; }
  uint64_t unshared() const { return unshared_; }

 private:
  shard::HbmPool& pool_;
  const KeySpaceId space_;
  std::atomic<uint64_t> shares_{0};
  std::atomic<uint64_t> unshared_{0};
};

}  // namespace reprise::testing
