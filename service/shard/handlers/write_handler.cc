#include "service/shard/handlers/write_handler.h"

#include <memory>
#include <utility>

#include "cluster/lanes/stream/stream_host.h"
#include "proto/types/status_macros.h"
#include "proto/wire/caller.h"
#include "service/shard/handlers/byte_streams.h"

namespace reprise::shard {
namespace {

// What lives as long as the call.
struct Hold {
  Admission::Ticket ticket;
  std::shared_ptr<ByteStreams::Token> token;
};

}  // namespace

grpc::ServerReadReactor<grpc::ByteBuffer>* WriteHandler::Open(grpc::CallbackServerContext* context,
                                                              grpc::ByteBuffer* response) {
  absl::StatusOr<Admission::Ticket> ticket = core_.admission->Admit(WorkKind::kWriteStream);
  if (!ticket.ok()) return lanes::RefuseWrite(ticket.status());
  auto hold = std::make_shared<Hold>();
  hold->ticket = *std::move(ticket);
  hold->token = core_.byte_streams->Add(context);
  absl::StatusOr<wire::Caller> caller = wire::CallerOf(*context, core_.access);
  if (!caller.ok()) return lanes::RefuseWrite(caller.status());
  auto admit = [this, token = hold->token.get(),
                caller = *std::move(caller)](AttachmentId attachment) -> absl::Status {
    REPRISE_RETURN_IF_ERROR(core_.attachments.Check(attachment, caller.tenant));
    token->Belongs(attachment);
    return absl::OkStatus();
  };
  return lanes::ServeWrite(
      core_.stream_host, response,
      {.admit = std::move(admit), .hold = std::move(hold), .staging = core_.staging});
}

}  // namespace reprise::shard
