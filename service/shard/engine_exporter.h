// The engine's memory as the view lane asks for it.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <optional>

#include "cluster/lanes/view/extent_exporter.h"
#include "proto/types/status_macros.h"
#include "service/shard/shard_engine.h"

namespace reprise::shard {

class EngineExporter final : public lanes::ExtentExporter {
 public:
  // REQUIRES: `engine` outlives this.
  explicit EngineExporter(ShardEngine& engine) : engine_(engine) {}

  std::optional<lanes::ExtentView> Export(const uint8_t* address) override {
    const std::optional<ExtentPlace> place = engine_.Export(address);
    if (!place.has_value()) return std::nullopt;
    return lanes::ExtentView{
        .id = place->extent_id,
        .fd = place->fd,
        .offset_bytes = place->offset_bytes,
        .extent_bytes = place->extent_bytes,
        .memory = place->fd < 0 ? lanes::MemoryKind::kDevice : lanes::MemoryKind::kHost,
        .number = place->extent};
  }
  absl::StatusOr<lanes::DeviceHandle> Share(const lanes::ExtentView& extent,
                                            AttachmentId attachment) override {
    REPRISE_ASSIGN_OR_RETURN(const HbmHandle handle, engine_.Share(extent.number, attachment));
    return lanes::DeviceHandle{.ipc = handle.ipc, .device_uuid = handle.device_uuid};
  }
  void Unshared(AttachmentId attachment) override { engine_.Unshared(attachment); }

 private:
  ShardEngine& engine_;
};

}  // namespace reprise::shard
