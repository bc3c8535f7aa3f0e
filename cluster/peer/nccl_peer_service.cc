#include "cluster/peer/nccl_peer_service.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "proto/wire/status.h"

namespace reprise::cluster {
namespace {

lanes::MonotonicDeadline DeadlineOf(const grpc::ServerContext& context) {
  const absl::Time deadline = absl::FromChrono(context.deadline());
  return lanes::MonotonicDeadline(std::min(deadline, absl::Now() + limits::kNcclTransferMax));
}

absl::Status Invalid(absl::string_view reason, absl::string_view sentence) {
  return Refusal(absl::StatusCode::kInvalidArgument, reason, sentence);
}

absl::StatusOr<lanes::NcclOpenCall> CallOf(const v1::NcclOpenRequest& request) {
  lanes::NcclOpenCall call{.link = lanes::NcclLinkId(request.link_id()),
                           .sequence = request.sequence(),
                           .block_bytes = request.block_bytes()};
  switch (request.group_case()) {
    case v1::NcclOpenRequest::kRead:
      call.lease = LeaseId(request.read().lease_id());
      call.first = request.read().first_block();
      call.count = request.read().blocks();
      return call;
    case v1::NcclOpenRequest::kWrite:
      call.reservation = ReservationId(request.write().reservation_id());
      if (!call.reservation) {
        return Invalid("RESERVATION_UNSET", "write.reservation_id is 0: name the reservation");
      }
      call.blocks.assign(request.write().blocks().begin(), request.write().blocks().end());
      call.count = static_cast<uint32_t>(call.blocks.size());
      return call;
    case v1::NcclOpenRequest::GROUP_NOT_SET:
      break;
  }
  return Invalid("GROUP_UNSET", "group is unset: set read or write");
}

}  // namespace

grpc::Status NcclPeerService::NcclConnect(grpc::ServerContext* context,
                                          const v1::NcclConnectRequest* request,
                                          v1::NcclConnectResponse*) {
  const AttachmentId attachment(request->attachment_id());
  if (absl::Status allowed = authorize_(*context, attachment); !allowed.ok()) {
    return wire::ToGrpcStatus(allowed);
  }
  lanes::NcclConnectCall call{.link = lanes::NcclLinkId(request->link_id())};
  if (request->unique_id().size() != sizeof(call.id.internal)) {
    return wire::ToGrpcStatus(
        Invalid("UNIQUE_ID_LENGTH",
                absl::StrCat("unique_id has ", request->unique_id().size(), " bytes, not ",
                             sizeof(call.id.internal), ": send ncclUniqueId as it is")));
  }
  std::memcpy(call.id.internal, request->unique_id().data(), sizeof(call.id.internal));
  return wire::ToGrpcStatus(host_->Connect(attachment, call));
}

grpc::Status NcclPeerService::NcclOpen(grpc::ServerContext* context,
                                       const v1::NcclOpenRequest* request,
                                       v1::NcclOpenResponse* response) {
  const AttachmentId attachment(request->attachment_id());
  if (absl::Status allowed = authorize_(*context, attachment); !allowed.ok()) {
    return wire::ToGrpcStatus(allowed);
  }
  const absl::StatusOr<lanes::NcclOpenCall> call = CallOf(*request);
  if (!call.ok()) return wire::ToGrpcStatus(call.status());
  const absl::StatusOr<lanes::NcclOpened> opened =
      host_->Open(attachment, *call, DeadlineOf(*context));
  if (!opened.ok()) return wire::ToGrpcStatus(opened.status());
  response->set_blocks(opened->count);
  response->set_code(static_cast<uint32_t>(opened->status.code()));
  response->set_reason(RefusalReason(opened->status));
  response->set_sentence(std::string(opened->status.message()));
  return grpc::Status::OK;
}

grpc::Status NcclPeerService::NcclFinish(grpc::ServerContext* context,
                                         const v1::NcclFinishRequest* request,
                                         v1::NcclFinishResponse*) {
  const AttachmentId attachment(request->attachment_id());
  if (absl::Status allowed = authorize_(*context, attachment); !allowed.ok()) {
    return wire::ToGrpcStatus(allowed);
  }
  return wire::ToGrpcStatus(host_->Finish(attachment, lanes::NcclLinkId(request->link_id()),
                                          request->sequence(), DeadlineOf(*context)));
}

grpc::Status NcclPeerService::NcclHangup(grpc::ServerContext* context,
                                         const v1::NcclHangupRequest* request,
                                         v1::NcclHangupResponse*) {
  const AttachmentId attachment(request->attachment_id());
  if (absl::Status allowed = authorize_(*context, attachment); !allowed.ok()) {
    return wire::ToGrpcStatus(allowed);
  }
  host_->Hangup(attachment, lanes::NcclLinkId(request->link_id()));
  return grpc::Status::OK;
}

}  // namespace reprise::cluster
