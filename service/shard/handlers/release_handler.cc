#include "service/shard/handlers/release_handler.h"

#include "absl/strings/str_cat.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::shard {

absl::Status ReleaseHandler::Handle(const wire::Caller& caller, const v1::ReleaseRequest& request,
                                    v1::ReleaseResponse& response) {
  if (static_cast<size_t>(request.lease_ids_size()) > limits::kLeasesPerAttachmentMax) {
    return Refusal(absl::StatusCode::kInvalidArgument, "LEASE_IDS_TOO_MANY",
                   absl::StrCat("lease_ids has ", request.lease_ids_size(),
                                " entries, more than kLeasesPerAttachmentMax = ",
                                limits::kLeasesPerAttachmentMax, ": send fewer"));
  }
  const AttachmentId attachment(request.attachment_id());
  REPRISE_RETURN_IF_ERROR(core_.attachments.Check(attachment, caller.tenant));
  std::vector<LeaseId> leases;
  leases.reserve(static_cast<size_t>(request.lease_ids_size()));
  for (const uint64_t id : request.lease_ids()) leases.emplace_back(id);
  REPRISE_ASSIGN_OR_RETURN(const uint32_t released, core_.engine.Release(attachment, leases));
  response.set_released(released);
  return absl::OkStatus();
}

}  // namespace reprise::shard
