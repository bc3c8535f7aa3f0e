#include "service/shard/handlers/hint_handler.h"

#include <utility>

#include "proto/types/status_macros.h"
#include "proto/wire/hints.h"

namespace reprise::shard {

absl::Status HintHandler::Handle(const wire::Caller& caller, const v1::HintRequest& request,
                                 v1::HintResponse& response) {
  const AttachmentId attachment(request.attachment_id());
  REPRISE_RETURN_IF_ERROR(core_.attachments.Check(attachment, caller.tenant));
  REPRISE_ASSIGN_OR_RETURN(const std::vector<BlockKey> keys, UnpackKeys(request.keys(), "keys"));
  REPRISE_ASSIGN_OR_RETURN(Hint hint, wire::FromMessage(request));
  REPRISE_ASSIGN_OR_RETURN(const HintResult result,
                           core_.engine.Hint(attachment, {.spec = SpecHandle(request.spec_handle()),
                                                          .keys = keys,
                                                          .hint = std::move(hint)}));
  response = wire::ToMessage(result);
  return absl::OkStatus();
}

}  // namespace reprise::shard
