// The only absl::Status <-> grpc::Status. A refusal's reason travels as google.rpc.ErrorInfo
// (domain "reprise") in the status details, and RESOURCE_EXHAUSTED carries google.rpc.RetryInfo.
//
// Thread safety: free functions; no shared state.
#pragma once

#include <grpcpp/support/status.h>

#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace reprise::wire {

inline constexpr char kErrorDomain[] = "reprise";

// Code and sentence as they are; details as above.
grpc::Status ToGrpcStatus(const absl::Status& status);

// The inverse: RefusalReason() and RetryAfter() of the result are the sender's. Details that are
// not ours (a proxy's, another domain's, garbage) are dropped; code and sentence stay.
absl::Status FromGrpcStatus(const grpc::Status& status);

// How long the shard or router asked its caller to wait before the next attempt; nullopt when it
// did not say.
std::optional<absl::Duration> RetryAfter(const absl::Status& status);

}  // namespace reprise::wire
