// The members file's text, read strictly:
//
//   shards:
//     - id: shard-0               # letters, digits, '-', '_' and '.', unique
//       address: 127.0.0.1:7001   # host:port
//       weight: 1.0               # share of the keys against the others'; unset: 1
//
// Thread safety: free functions without shared state.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cluster/membership/membership.h"

namespace reprise::cluster {

// No members for a text without content. INVALID_ARGUMENT naming line, field, value and cure: a key
// that is not one of the above (with the nearest one that is), a missing or ill-formed field, an id
// given twice, more than kShardsMax shards, or no YAML at all.
absl::StatusOr<std::vector<Member>> ParseMembersFile(absl::string_view text);

// INVALID_ARGUMENT naming what is wrong with one member, wherever it came from.
absl::Status ValidateMember(const Member& member);

}  // namespace reprise::cluster
