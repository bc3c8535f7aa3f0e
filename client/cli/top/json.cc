#include "client/cli/top/json.h"

#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace reprise::cli {
namespace {

using Json = nlohmann::ordered_json;

Json TierJson(const std::map<v1::Tier, TopTier>& tiers) {
  Json json = Json::array();
  for (const auto& [tier, use] : tiers) {
    json.push_back({{"tier", TierNameOf(tier)},
                    {"used_bytes", use.used_bytes},
                    {"capacity_bytes", use.capacity_bytes},
                    {"lost", use.lost}});
  }
  return json;
}

// The numbers of a shard, or of all.
void AddNumbers(const TopRow& row, Json& json) {
  json["tiers"] = TierJson(row.tiers);
  json["blocks"] = row.answered ? Json(row.blocks) : Json();
  json["leases"] = row.answered ? Json(row.leases) : Json();
  json["attachments"] = row.answered ? Json(row.attachments) : Json();
  Json interval, counted, per_second, share;
  if (row.rates.has_value()) {
    interval = absl::ToDoubleSeconds(row.rates->elapsed);
    for (size_t i = 0; i < kRates; ++i) {
      const char* const name = RateName(static_cast<Rate>(i));
      counted[name] = row.rates->counted[i];
      per_second[name] = row.rates->per_second[i];
    }
    if (const auto hit = row.rates->HitShare()) share = *hit;
  }
  json["interval_s"] = interval;
  json["hit_share"] = share;
  json["counted"] = counted;
  json["per_second"] = per_second;
}

Json TextOrNull(absl::string_view text) {
  return text.empty() ? Json() : Json(std::string(text));
}

}  // namespace

nlohmann::ordered_json TopJson(const TopView& view) {
  Json json = {{"time", absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", view.wall, absl::UTCTimeZone())},
               {"interval_s", absl::ToDoubleSeconds(view.elapsed)},
               {"router", nullptr},
               {"shards_by_state", Json::object()},
               {"total", Json::object()},
               {"shards", Json::array()}};
  if (!view.router.empty()) {
    json["router"] = {{"address", view.router},
                      {"error", TextOrNull(view.router_status.message())},
                      {"age_s", absl::ToDoubleSeconds(view.router_age)},
                      {"epoch", view.epoch},
                      {"sessions", view.sessions},
                      {"members_error", TextOrNull(view.members_trouble)}};
  }
  for (const auto& [state, count] : view.states) json["shards_by_state"][state] = count;
  json["total"]["rated_shards"] = view.rated_shards;
  AddNumbers(view.total, json["total"]);
  for (const TopRow& row : view.rows) {
    Json shard = {{"id", TextOrNull(row.id)},
                  {"address", row.address},
                  {"state", row.state},
                  {"note", TextOrNull(row.note)}};
    AddNumbers(row, shard);
    json["shards"].push_back(std::move(shard));
  }
  return json;
}

}  // namespace reprise::cli
