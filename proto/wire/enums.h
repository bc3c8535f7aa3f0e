// Enumerations between messages and types. From a message: INVALID_ARGUMENT (or what `FromMessage`
// says) naming the field for UNSPECIFIED and for numbers that this version does not know.
//
// Thread safety: free functions; no shared state.
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/types/cache_spec.h"
#include "proto/types/hints.h"
#include "proto/types/ids.h"
#include "proto/types/verbs.h"
#include "reprise/v1/common.pb.h"
#include "reprise/v1/shard.pb.h"

namespace reprise::wire {

v1::AttentionKind ToMessage(AttentionKind kind);
v1::DataType ToMessage(DataType type);
v1::Tier ToMessage(Tier tier);
v1::LaneKind ToMessage(LaneKind kind);  // in-process lanes are never on the wire: UNSPECIFIED
v1::ReserveOutcome ToMessage(ReserveOutcome outcome);
v1::MissReason ToMessage(MissReason reason);
v1::HintOutcome ToMessage(HintOutcome outcome);

// Unset and unknown kinds stay kUnspecified: ValidateSpec refuses them with the spec's other
// faults.
AttentionKind FromMessage(v1::AttentionKind kind);
DataType FromMessage(v1::DataType type);

absl::StatusOr<Tier> FromMessage(v1::Tier tier, absl::string_view field);
absl::StatusOr<LaneKind> FromMessage(v1::LaneKind kind, absl::string_view field);
absl::StatusOr<ReserveOutcome> FromMessage(v1::ReserveOutcome outcome, absl::string_view field);
absl::StatusOr<MissReason> FromMessage(v1::MissReason reason, absl::string_view field);
absl::StatusOr<HintOutcome> FromMessage(v1::HintOutcome outcome, absl::string_view field);

}  // namespace reprise::wire
