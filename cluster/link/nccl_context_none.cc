// In place of nccl_context.cc where the headers of NCCL or CUDA were not found.
#include "cluster/link/nccl_context.h"
#include "proto/types/refusal.h"

namespace reprise::cluster {

namespace {

absl::Status Absent() {
  return Refusal(absl::StatusCode::kUnavailable, "NCCL_ABSENT",
                 "NCCL: this build was made without nccl.h or CUDA's headers: build it where both "
                 "are found; until then blocks move by the view and stream lanes");
}

}  // namespace

absl::StatusOr<std::shared_ptr<const NcclContext>> NcclContext::Open(NcclOptions) {
  return Absent();
}

absl::StatusOr<std::string> NcclContext::LibraryVersion() {
  return Absent();
}

}  // namespace reprise::cluster
