#include "service/shard/handlers/reserve_handler.h"

#include "absl/strings/str_cat.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "proto/wire/verbs.h"

namespace reprise::shard {

absl::Status ReserveHandler::Handle(const wire::Caller& caller, const v1::ReserveRequest& request,
                                    v1::ReserveResponse& response) {
  if (core_.draining.load(std::memory_order_acquire)) {
    return Refusal(absl::StatusCode::kUnavailable, "DRAINING",
                   absl::StrCat("shard ", core_.id.name, " is about to stop: write elsewhere"));
  }
  const AttachmentId attachment(request.attachment_id());
  REPRISE_RETURN_IF_ERROR(core_.attachments.Check(attachment, caller.tenant));
  REPRISE_ASSIGN_OR_RETURN(const std::vector<BlockKey> keys, UnpackKeys(request.keys(), "keys"));
  REPRISE_ASSIGN_OR_RETURN(
      const ReserveResult reserved,
      core_.engine.Reserve(attachment, {.spec = SpecHandle(request.spec_handle()),
                                        .keys = keys,
                                        .session_id = request.session_id(),
                                        .token_positions = wire::Span(request.token_positions()),
                                        .token_ids = wire::Span(request.token_ids()),
                                        .ttl = absl::Milliseconds(request.ttl_ms()),
                                        .replica = request.replica(),
                                        .spare_room = request.spare_room()}));
  response.set_reservation_id(reserved.reservation.value);
  wire::ToMessage(reserved.outcomes, response.mutable_outcomes());
  return absl::OkStatus();
}

}  // namespace reprise::shard
