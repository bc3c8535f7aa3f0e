#include "service/shard/handlers/commit_handler.h"

#include "proto/types/status_macros.h"
#include "proto/wire/verbs.h"

namespace reprise::shard {

absl::Status CommitHandler::Handle(const wire::Caller& caller, const v1::CommitRequest& request,
                                   v1::CommitResponse& response) {
  REPRISE_ASSIGN_OR_RETURN(const std::vector<Checksum128> checksums,
                           UnpackChecksums(request.checksums(), "checksums"));
  const AttachmentId attachment(request.attachment_id());
  REPRISE_RETURN_IF_ERROR(core_.attachments.Check(attachment, caller.tenant));
  REPRISE_ASSIGN_OR_RETURN(
      const CommitResult committed,
      core_.engine.Commit(attachment, {.reservation = ReservationId(request.reservation_id()),
                                       .blocks = wire::Span(request.blocks()),
                                       .checksums = checksums}));
  response.set_committed(committed.committed);
  response.set_duplicate(committed.duplicate);
  return absl::OkStatus();
}

}  // namespace reprise::shard
