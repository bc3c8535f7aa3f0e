#include "client/cpp/explain_json.h"

#include <tuple>

#include "nlohmann/json.hpp"

namespace reprise::client {
namespace {

using Json = nlohmann::ordered_json;

// How much a reason tells a person: that something else was stored beats that nothing was ever
// seen.
int Tells(MissReason reason) {
  switch (reason) {
    case MissReason::kNone:
      return 4;
    case MissReason::kTokensDiffer:
    case MissReason::kOtherSpec:
      return 3;
    case MissReason::kEvicted:
    case MissReason::kRemoved:
    case MissReason::kQuarantined:
      return 2;
    case MissReason::kPending:
      return 1;
    case MissReason::kNeverStored:
      return 0;
  }
  return 0;
}

Json ToJson(const ShardExplanation& one) {
  Json json = {{"shard_id", one.shard.id.name}, {"address", one.shard.address}};
  if (!one.status.ok()) {
    json["error"] = {{"code", static_cast<int>(one.status.code())},
                     {"message", std::string(one.status.message())}};
    return json;
  }
  const Explanation& e = one.explanation;
  Json tiers = Json::array();
  for (const TierRun& run : e.tiers)
    tiers.push_back({{"tier", TierName(run.tier)}, {"blocks", run.blocks}});
  json["run_blocks"] = e.run_blocks;
  json["tiers"] = tiers;
  json["reason"] = MissReasonName(e.reason);
  json["miss_block"] = e.miss_block;
  if (e.event_unix_ms != 0) json["event_unix_ms"] = e.event_unix_ms;
  if (!e.event_cause.empty()) json["event_cause"] = e.event_cause;
  if (e.reason == MissReason::kTokensDiffer) {
    json["first_differing_token"] = e.first_differing_token;
    json["prompt_token"] = e.prompt_token;
    json["stored_token"] = e.stored_token;
  }
  if (e.reason == MissReason::kOtherSpec) {
    json["spec_field"] = e.spec_difference.field;
    json["spec_value_asked"] = e.spec_difference.left;
    json["spec_value_stored"] = e.spec_difference.right;
  }
  json["sentence"] = e.sentence;
  return json;
}

}  // namespace

const char* MissReasonName(MissReason reason) {
  switch (reason) {
    case MissReason::kNone:
      return "none";
    case MissReason::kNeverStored:
      return "never_stored";
    case MissReason::kEvicted:
      return "evicted";
    case MissReason::kRemoved:
      return "removed";
    case MissReason::kQuarantined:
      return "quarantined";
    case MissReason::kTokensDiffer:
      return "tokens_differ";
    case MissReason::kOtherSpec:
      return "other_spec";
    case MissReason::kPending:
      return "pending";
  }
  return "";
}

const ShardExplanation* BestExplanation(const std::vector<ShardExplanation>& explanations) {
  const ShardExplanation* best = nullptr;
  const auto rank = [](const ShardExplanation& one) {
    // A shard on which nobody opened the spec that was asked for cannot name the field.
    return std::make_tuple(one.explanation.run_blocks, Tells(one.explanation.reason),
                           !one.explanation.spec_difference.field.empty());
  };
  for (const ShardExplanation& one : explanations) {
    if (one.status.ok() && (best == nullptr || rank(one) > rank(*best))) best = &one;
  }
  return best;
}

std::string ExplainJson(const std::vector<ShardExplanation>& explanations) {
  const ShardExplanation* best = BestExplanation(explanations);
  Json json = best != nullptr
                  ? ToJson(*best)
                  : Json{{"run_blocks", 0},
                         {"sentence", "No shard answered: nothing can be said about this prompt."}};
  json["shards"] = Json::array();
  for (const ShardExplanation& one : explanations) json["shards"].push_back(ToJson(one));
  // A shard's words may be anything; JSON is UTF-8.
  return json.dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

}  // namespace reprise::client
