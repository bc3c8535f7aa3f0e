#include "service/shard/handlers/lookup_handler.h"

#include "proto/types/status_macros.h"
#include "proto/wire/verbs.h"

namespace reprise::shard {

absl::Status LookupHandler::Handle(const wire::Caller& caller, const v1::LookupRequest& request,
                                   v1::LookupResponse& response) {
  const AttachmentId attachment(request.attachment_id());
  REPRISE_RETURN_IF_ERROR(core_.attachments.Check(attachment, caller.tenant));
  REPRISE_ASSIGN_OR_RETURN(const std::vector<BlockKey> keys, UnpackKeys(request.keys(), "keys"));
  REPRISE_ASSIGN_OR_RETURN(
      const LookupResult found,
      core_.engine.Lookup(attachment, SpecHandle(request.spec_handle()), keys));
  response.set_run_blocks(found.run_blocks);
  wire::ToMessage(found.tiers, response.mutable_tiers());
  return absl::OkStatus();
}

}  // namespace reprise::shard
