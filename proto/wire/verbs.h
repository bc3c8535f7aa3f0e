// What verbs answer, between messages and types.
//
// Thread safety: free functions; no shared state.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/types/block_key.h"
#include "proto/types/verbs.h"
#include "reprise/v1/shard.pb.h"

namespace reprise::wire {

// A packed repeated field of numbers where it lies.
inline std::span<const uint32_t> Span(const google::protobuf::RepeatedField<uint32_t>& field) {
  return {field.data(), static_cast<size_t>(field.size())};
}

// ---- Runs by tier (a repeated field)
using TierRunField = google::protobuf::RepeatedPtrField<v1::TierRun>;
void ToMessage(std::span<const TierRun> runs, TierRunField* field);
absl::StatusOr<std::vector<TierRun>> FromMessage(const TierRunField& field);

// ---- Outcomes of Reserve, one per key (a packed repeated enum)
using OutcomeField = google::protobuf::RepeatedField<int>;
void ToMessage(std::span<const ReserveOutcome> outcomes, OutcomeField* field);
absl::StatusOr<std::vector<ReserveOutcome>> FromMessage(const OutcomeField& field);

// ---- Explain. `shard_id` of the message is the caller's to set.
v1::ExplainResponse ToMessage(const Explanation& explanation);
absl::StatusOr<Explanation> FromMessage(const v1::ExplainResponse& message);

}  // namespace reprise::wire
