// The engine's memory as the view lane asks for it.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <optional>

#include "cluster/lanes/view/extent_exporter.h"
#include "service/shard/shard_engine.h"

namespace reprise::shard {

class EngineExporter final : public lanes::ExtentExporter {
 public:
  // REQUIRES: `engine` outlives this.
  explicit EngineExporter(ShardEngine& engine) : engine_(engine) {}

  std::optional<lanes::ExtentView> Export(const uint8_t* address) override {
    const std::optional<ExtentPlace> place = engine_.Export(address);
    if (!place.has_value() || place->fd < 0) return std::nullopt;
    return lanes::ExtentView{.id = place->extent_id,
                             .fd = place->fd,
                             .offset_bytes = place->offset_bytes,
                             .extent_bytes = place->extent_bytes};
  }

 private:
  ShardEngine& engine_;
};

}  // namespace reprise::shard
