#include "service/shard/handlers/acquire_handler.h"

#include "proto/types/status_macros.h"
#include "proto/wire/verbs.h"

namespace reprise::shard {

absl::Status AcquireHandler::Handle(const wire::Caller& caller, const v1::AcquireRequest& request,
                                    v1::AcquireResponse& response) {
  const AttachmentId attachment(request.attachment_id());
  REPRISE_RETURN_IF_ERROR(core_.attachments.Check(attachment, caller.tenant));
  REPRISE_ASSIGN_OR_RETURN(const std::vector<BlockKey> keys, UnpackKeys(request.keys(), "keys"));
  REPRISE_ASSIGN_OR_RETURN(
      const AcquireResult acquired,
      core_.engine.Acquire(attachment, {.spec = SpecHandle(request.spec_handle()),
                                        .keys = keys,
                                        .first_block = request.first_block(),
                                        .ttl = absl::Milliseconds(request.ttl_ms())}));
  response.set_lease_id(acquired.lease.value);
  response.set_run_blocks(acquired.run_blocks);
  response.set_checksums(PackChecksums(acquired.checksums));
  wire::ToMessage(acquired.tiers, response.mutable_tiers());
  return absl::OkStatus();
}

}  // namespace reprise::shard
