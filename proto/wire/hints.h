// Hints and what became of them, between messages and types.
//
// Thread safety: free functions; no shared state.
#pragma once

#include "absl/status/statusor.h"
#include "proto/types/hints.h"
#include "reprise/v1/shard.pb.h"

namespace reprise::wire {

// Sets the request's action.
void ToMessage(const Hint& hint, v1::HintRequest& request);
// INVALID_ARGUMENT (HINT_ACTION) for no action, or one that this version does not know.
absl::StatusOr<Hint> FromMessage(const v1::HintRequest& request);

v1::HintResponse ToMessage(const HintResult& result);
absl::StatusOr<HintResult> FromMessage(const v1::HintResponse& message);

}  // namespace reprise::wire
