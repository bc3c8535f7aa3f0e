// Membership from a file that people or `reprise up` write (members_file.h says how). The file is
// looked at every kMembersPollInterval. A file that is broken, empty or gone keeps the last good
// members, and the log says why.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "cluster/membership/membership.h"
#include "proto/types/limits.h"

namespace reprise::cluster {

struct StaticFileMembershipOptions {
  std::string path;
  absl::Duration poll_interval = limits::kMembersPollInterval;
  // Told once for each way in which the file turns bad, and when it is good again. Empty: nobody is
  // told.
  std::function<void(absl::string_view)> log;
};

class StaticFileMembership : public Membership {
 public:
  // A file that is absent or empty has no members yet. INVALID_ARGUMENT when it exists and is
  // broken.
  static absl::StatusOr<std::unique_ptr<StaticFileMembership>> Create(
      StaticFileMembershipOptions options);
};

}  // namespace reprise::cluster
