#include "service/tiers/relief.h"

#include "proto/types/limits.h"
#include "proto/types/status_macros.h"

namespace reprise::shard {

Relief NextRelief(std::span<TierLoad> loads) {
  REPRISE_CHECK(!loads.empty());
  for (TierLoad& load : loads) {
    if (load.pressure > limits::kEvictHighWatermark) load.relieving = true;
    if (load.pressure <= limits::kEvictLowWatermark) load.relieving = false;
  }
  for (size_t level = loads.size(); level > 0; --level) {
    const TierLoad& load = loads[level - 1];
    if (!load.relieving || load.stuck) continue;
    return {.kind = level == loads.size() ? Relief::Kind::kEvict : Relief::Kind::kDemote,
            .level = static_cast<Level>(level - 1)};
  }
  return {};
}

}  // namespace reprise::shard
