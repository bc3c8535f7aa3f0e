// Refusals: a canonical status, a sentence that names what was wrong and the cure, and a reason for
// machines.
//
// Thread safety: free functions; no shared state.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace reprise {

// `reason` is UPPER_SNAKE_CASE, e.g. "KEYS_LENGTH"; on the wire it is google.rpc.ErrorInfo.reason.
absl::Status Refusal(absl::StatusCode code, absl::string_view reason, absl::string_view sentence);

// The reason given to Refusal(), or "" when the status has none.
std::string RefusalReason(const absl::Status& status);

}  // namespace reprise
