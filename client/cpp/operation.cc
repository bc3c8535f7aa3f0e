#include "client/cpp/operation.h"

#include "absl/time/clock.h"

namespace reprise::client {

absl::Status CallContext::Check() const {
  if (cancelled != nullptr && cancelled->load()) {
    return absl::CancelledError("the operation was cancelled");
  }
  if (absl::Now() >= deadline) return absl::DeadlineExceededError("the call's deadline is over");
  return absl::OkStatus();
}

}  // namespace reprise::client
