#include "proto/types/refusal.h"

#include "absl/strings/cord.h"
#include "absl/types/optional.h"

namespace reprise {
namespace {
constexpr char kReasonUrl[] = "reprise/reason";
}

absl::Status Refusal(absl::StatusCode code, absl::string_view reason, absl::string_view sentence) {
  absl::Status status(code, sentence);
  status.SetPayload(kReasonUrl, absl::Cord(reason));
  return status;
}

std::string RefusalReason(const absl::Status& status) {
  const absl::optional<absl::Cord> reason = status.GetPayload(kReasonUrl);
  return reason.has_value() ? std::string(*reason) : std::string();
}

}  // namespace reprise
