// Looks at clusters that never were.
//
// Thread safety: free functions; no shared state.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "client/cli/top/view.h"

namespace reprise::cli::testing {

using Counters = std::map<std::string, uint64_t>;

inline absl::Time At(double seconds) {
  return absl::UnixEpoch() + absl::Seconds(1000) + absl::Seconds(seconds);
}

// A shard that answered, at "ID:7".
inline TopShard Shard(const std::string& id, double at, const Counters& counters = {}) {
  TopShard shard{.report = {.address = id + ":7", .shard_id = id, .state = "alive"}, .at = At(at)};
  shard.report.description.set_shard_id(id);
  shard.report.description.set_incarnation(1);
  for (const auto& [name, value] : counters) {
    auto* counter = shard.report.description.add_counters();
    counter->set_name(name);
    counter->set_value(value);
  }
  return shard;
}

inline TopShard Silent(const std::string& id, double at,
                       const std::string& why = "failed to connect: a: Connection refused") {
  TopShard shard = Shard(id, at);
  shard.report.description.Clear();
  shard.report.status = absl::UnavailableError(why);
  return shard;
}

inline void AddTier(TopShard& shard, v1::Tier tier, uint64_t used, uint64_t capacity) {
  auto* use = shard.report.description.add_tiers();
  use->set_tier(tier);
  use->set_used_bytes(used);
  use->set_capacity_bytes(capacity);
}

// A look that a router's answer began.
inline TopSample Sample(double at, std::vector<TopShard> shards) {
  TopSample sample{.at = At(at),
                   .wall = At(at),
                   .router = "router:7",
                   .router_at = At(at),
                   .shards = std::move(shards)};
  sample.router_description.set_epoch(42);
  sample.router_description.set_sessions(3);
  return sample;
}

inline const TopRow& RowOf(const TopView& view, const std::string& id) {
  for (const TopRow& row : view.rows) {
    if (row.id == id) return row;
  }
  static const TopRow kNone;
  return kNone;
}

}  // namespace reprise::cli::testing
