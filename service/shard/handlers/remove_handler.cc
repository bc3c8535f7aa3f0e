#include "service/shard/handlers/remove_handler.h"

#include "proto/types/status_macros.h"

namespace reprise::shard {

absl::Status RemoveHandler::Handle(const wire::Caller& caller, const v1::RemoveRequest& request,
                                   v1::RemoveResponse& response) {
  const AttachmentId attachment(request.attachment_id());
  REPRISE_RETURN_IF_ERROR(core_.attachments.Check(attachment, caller.tenant));
  REPRISE_ASSIGN_OR_RETURN(const std::vector<BlockKey> keys, UnpackKeys(request.keys(), "keys"));
  REPRISE_ASSIGN_OR_RETURN(
      const RemoveResult removed,
      core_.engine.Remove(attachment, SpecHandle(request.spec_handle()), keys));
  response.set_removed(removed.removed);
  response.set_leased(removed.leased);
  return absl::OkStatus();
}

}  // namespace reprise::shard
