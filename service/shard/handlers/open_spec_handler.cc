#include "service/shard/handlers/open_spec_handler.h"

#include <optional>

#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "proto/wire/spec.h"

namespace reprise::shard {

absl::Status OpenSpecHandler::Handle(const wire::Caller& caller, const v1::OpenSpecRequest& request,
                                     v1::OpenSpecResponse& response) {
  const AttachmentId attachment(request.attachment_id());
  REPRISE_RETURN_IF_ERROR(core_.attachments.Check(attachment, caller.tenant));
  if (!request.has_spec()) {
    return Refusal(absl::StatusCode::kInvalidArgument, "SPEC_UNSET",
                   "spec is unset: send the cache spec of the engine");
  }
  std::optional<Fingerprint> expected;
  if (!request.expected_fingerprint().empty()) {
    REPRISE_ASSIGN_OR_RETURN(expected, wire::FingerprintFromBytes(request.expected_fingerprint(),
                                                                  "expected_fingerprint"));
  }
  REPRISE_ASSIGN_OR_RETURN(
      const OpenSpecResult opened,
      core_.engine.OpenSpec(attachment, wire::FromMessage(request.spec()), expected));
  response.set_spec_handle(opened.handle.value);
  response.set_fingerprint(wire::ToBytes(opened.fingerprint));
  response.set_block_bytes(opened.block_bytes);
  response.set_replication(core_.replication);
  return absl::OkStatus();
}

}  // namespace reprise::shard
