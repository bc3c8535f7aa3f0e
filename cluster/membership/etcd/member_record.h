// A member as etcd keeps it: below a prefix a key that ends with its id, and as value a JSON object
//
//   {"address": "10.0.0.7:7070", "weight": 1.0, "leaving": false}
//
// where weight and leaving may be left out, and what else is there is passed over, so that a later
// version may say more.
//
// Thread safety: free functions without shared state.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cluster/membership/membership.h"

namespace reprise::cluster {

struct MemberRecord {
  Member member;
  bool leaving = false;  // it says good-bye: what follows is no accident
};

std::string ToRecord(const MemberRecord& record);
// INVALID_ARGUMENT saying what is wrong with it.
absl::StatusOr<MemberRecord> ParseRecord(absl::string_view id, absl::string_view value);

}  // namespace reprise::cluster
