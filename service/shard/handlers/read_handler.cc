#include "service/shard/handlers/read_handler.h"

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "cluster/lanes/stream/stream_host.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "proto/wire/caller.h"
#include "reprise/v1/shard.pb.h"
#include "service/shard/handlers/byte_streams.h"

namespace reprise::shard {
namespace {

// What lives as long as the call.
struct Hold {
  Admission::Ticket ticket;
  std::shared_ptr<ByteStreams::Token> token;
};

absl::StatusOr<v1::ReadRequest> Parse(const grpc::ByteBuffer& message) {
  grpc::Slice slice;
  v1::ReadRequest request;
  if (message.DumpToSingleSlice(&slice).ok() &&
      request.ParseFromArray(slice.begin(), static_cast<int>(slice.size()))) {
    return request;
  }
  return Refusal(absl::StatusCode::kInvalidArgument, "MESSAGE_DAMAGED",
                 "the request is no ReadRequest: send it as reprise/v1/shard.proto defines it");
}

}  // namespace

grpc::ServerWriteReactor<grpc::ByteBuffer>* ReadHandler::Open(grpc::CallbackServerContext* context,
                                                              const grpc::ByteBuffer& message) {
  absl::StatusOr<Admission::Ticket> ticket = core_.admission->Admit(WorkKind::kReadStream);
  if (!ticket.ok()) return lanes::RefuseRead(ticket.status());
  const absl::StatusOr<v1::ReadRequest> request = Parse(message);
  if (!request.ok()) return lanes::RefuseRead(request.status());
  const AttachmentId attachment(request->attachment_id());
  const absl::StatusOr<wire::Caller> caller = wire::CallerOf(*context, core_.access);
  const absl::Status known =
      caller.ok() ? core_.attachments.Check(attachment, caller->tenant) : caller.status();
  if (!known.ok()) return lanes::RefuseRead(known);
  auto hold = std::make_shared<Hold>();
  hold->ticket = *std::move(ticket);
  hold->token = core_.byte_streams->Add(context);
  hold->token->Belongs(attachment);
  return lanes::ServeRead(
      core_.stream_host, *request,
      {.hold = std::move(hold),
       .staging = core_.staging,
       .admit_file = [this] { return core_.admission->Admit(WorkKind::kDiskRead); },
       .wait_elsewhere = [this](std::function<void()> job) { disk_.Run(std::move(job)); }});
}

}  // namespace reprise::shard
