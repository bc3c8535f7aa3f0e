// The client's counters as JSON.
#include "client/cpp/client.h"
#include "client/cpp/client_core.h"
#include "nlohmann/json.hpp"

namespace reprise::client {
namespace {

using Json = nlohmann::ordered_json;

const char* BreakerName(Breaker::State state) {
  switch (state) {
    case Breaker::State::kClosed:
      return "closed";
    case Breaker::State::kOpen:
      return "open";
    case Breaker::State::kProbing:
      return "probing";
  }
  return "";
}

}  // namespace

std::string Client::StatsJson() const {
  Counters& counters = core_->counters;
  Json lanes = Json::object();
  for (LaneKind kind : {LaneKind::kStream, LaneKind::kTcp, LaneKind::kView, LaneKind::kNccl}) {
    lanes[LaneKindName(kind)] = counters.blocks_by_lane[static_cast<size_t>(kind)].load();
  }
  Json tiers = Json::object();
  for (Tier tier : {Tier::kHbm, Tier::kDram, Tier::kNvme}) {
    tiers[TierName(tier)] = counters.blocks_by_tier[static_cast<size_t>(tier)].load();
  }
  Json by_shard = Json::object();
  {
    absl::MutexLock lock(&counters.mu);
    for (const auto& [shard, blocks] : counters.by_shard) by_shard[shard] = blocks;
  }
  Json shards = Json::array();
  for (const ShardView& view : core_->shards.Views()) {
    shards.push_back({{"address", view.address},
                      {"shard_id", view.shard_id},
                      {"attached", view.attached},
                      {"draining", view.draining},
                      {"breaker", BreakerName(view.breaker)},
                      {"breaker_opened", view.breaker_opened},
                      {"connects", view.connects}});
  }
  const Json stats = {{"acquires", counters.acquires.load()},
                      {"blocks_asked", counters.blocks_asked.load()},
                      {"blocks_found", counters.blocks_found.load()},
                      {"fetches", counters.fetches.load()},
                      {"blocks_fetched", counters.blocks_fetched.load()},
                      {"bytes_fetched", counters.bytes_fetched.load()},
                      {"blocks_fetched_by_lane", lanes},
                      {"blocks_fetched_by_tier", tiers},
                      {"blocks_fetched_by_shard", by_shard},
                      {"blocks_corrupt", counters.blocks_corrupt.load()},
                      {"blocks_rescued", counters.blocks_rescued.load()},
                      {"stores", counters.stores.load()},
                      {"blocks_stored", counters.blocks_stored.load()},
                      {"blocks_present", counters.blocks_present.load()},
                      {"blocks_refused", counters.blocks_refused.load()},
                      {"bytes_stored", counters.bytes_stored.load()},
                      {"pulls", counters.pulls.load()},
                      {"prefetches", counters.prefetches.load()},
                      {"prefetch_hits", counters.prefetch_hits.load()},
                      {"hints", counters.hints.load()},
                      {"calls_failed", counters.calls_failed.load()},
                      {"calls_late", counters.calls_late.load()},
                      {"staging_bytes", staging_bytes()},
                      {"shards", shards}};
  // A shard's last words may be anything; JSON is UTF-8.
  return stats.dump(-1, ' ', /*ensure_ascii=*/false, nlohmann::json::error_handler_t::replace);
}

}  // namespace reprise::client
