#include "proto/wire/status.h"

#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"

namespace reprise::wire {
namespace {

constexpr char kRetryUrl[] = "reprise/retry_after_ms";

// Only canonical codes are known to a peer.
absl::StatusCode CanonicalCode(int code) {
  return code >= 0 && code <= static_cast<int>(absl::StatusCode::kUnauthenticated)
             ? static_cast<absl::StatusCode>(code)
             : absl::StatusCode::kUnknown;
}

std::string Details(const absl::Status& status) {
  const std::string reason = RefusalReason(status);
  const bool retry = status.code() == absl::StatusCode::kResourceExhausted;
  if (reason.empty() && !retry) return {};
  google::rpc::Status details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(std::string(status.message()));
  if (!reason.empty()) {
    google::rpc::ErrorInfo info;
    info.set_reason(reason);
    info.set_domain(kErrorDomain);
    details.add_details()->PackFrom(info);
  }
  if (retry) {
    const absl::Duration delay = RetryAfter(status).value_or(limits::kRetryAfter);
    google::rpc::RetryInfo info;
    info.mutable_retry_delay()->set_seconds(absl::ToInt64Seconds(delay));
    info.mutable_retry_delay()->set_nanos(
        static_cast<int32_t>(absl::ToInt64Nanoseconds(delay % absl::Seconds(1))));
    details.add_details()->PackFrom(info);
  }
  return details.SerializeAsString();
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()),
                      Details(status));
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const absl::StatusCode code = CanonicalCode(status.error_code());
  std::string reason;
  std::optional<int64_t> retry_ms;
  google::rpc::Status details;
  if (details.ParseFromString(status.error_details())) {
    for (const google::protobuf::Any& any : details.details()) {
      google::rpc::ErrorInfo info;
      google::rpc::RetryInfo retry;
      if (any.UnpackTo(&info) && info.domain() == kErrorDomain) {
        reason = info.reason();
      } else if (any.UnpackTo(&retry)) {
        retry_ms = retry.retry_delay().seconds() * 1000 + retry.retry_delay().nanos() / 1'000'000;
      }
    }
  }
  absl::Status converted = reason.empty() ? absl::Status(code, status.error_message())
                                          : Refusal(code, reason, status.error_message());
  if (retry_ms.has_value()) converted.SetPayload(kRetryUrl, absl::Cord(absl::StrCat(*retry_ms)));
  return converted;
}

std::optional<absl::Duration> RetryAfter(const absl::Status& status) {
  const absl::optional<absl::Cord> text = status.GetPayload(kRetryUrl);
  int64_t milliseconds = 0;
  if (!text.has_value() || !absl::SimpleAtoi(std::string(*text), &milliseconds)) {
    return std::nullopt;
  }
  return absl::Milliseconds(milliseconds);
}

}  // namespace reprise::wire
