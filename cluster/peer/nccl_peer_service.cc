#include "cluster/peer/nccl_peer_service.h"

#include <algorithm>
#include <cstring>
#include <functional>
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
      // A block that came twice would be received into one slot twice at once.
      if (std::adjacent_find(call.blocks.begin(), call.blocks.end(), std::greater_equal<>()) !=
          call.blocks.end()) {
        return Invalid("BLOCKS_ORDER", "write.blocks are not ascending: name each block once");
      }
      call.count = static_cast<uint32_t>(call.blocks.size());
      return call;
    case v1::NcclOpenRequest::GROUP_NOT_SET:
      break;
  }
  return Invalid("GROUP_UNSET", "group is unset: set read or write");
}

}  // namespace

template <typename Verb>
absl::Status NcclPeerService::Authorized(const grpc::ServerContext& context,
                                         AttachmentId attachment, Verb verb) {
  REPRISE_RETURN_IF_ERROR(authorize_(context, attachment));
  return verb();
}

template <typename Verb>
grpc::Status NcclPeerService::Serve(const grpc::ServerContext& context, AttachmentId attachment,
                                    Verb verb) {
  absl::Status status;
  if (calls_.fetch_add(1, std::memory_order_relaxed) >= limits::kNcclPeerCallsMax) {
    status = Refusal(absl::StatusCode::kResourceExhausted, lanes::kNcclCallsRefusal,
                     absl::StrCat("this shard serves its ", limits::kNcclPeerCallsMax,
                                  " NCCL calls already: use the stream lane"));
  } else {
    status = Authorized(context, attachment, std::move(verb));
  }
  calls_.fetch_sub(1, std::memory_order_relaxed);
  return wire::ToGrpcStatus(status);
}

grpc::Status NcclPeerService::NcclConnect(grpc::ServerContext* context,
                                          const v1::NcclConnectRequest* request,
                                          v1::NcclConnectResponse*) {
  const AttachmentId attachment(request->attachment_id());
  return Serve(*context, attachment, [&]() -> absl::Status {
    lanes::NcclConnectCall call{.link = lanes::NcclLinkId(request->link_id())};
    if (request->unique_id().size() != sizeof(call.id.internal)) {
      return Invalid("UNIQUE_ID_LENGTH",
                     absl::StrCat("unique_id has ", request->unique_id().size(), " bytes, not ",
                                  sizeof(call.id.internal), ": send ncclUniqueId as it is"));
    }
    std::memcpy(call.id.internal, request->unique_id().data(), sizeof(call.id.internal));
    REPRISE_RETURN_IF_ERROR(host_->Connect(attachment, call));
    // An attachment that ended after it was let in, and before it had this link, did not end it.
    const absl::Status still = authorize_(*context, attachment);
    if (!still.ok()) host_->Hangup(attachment, call.link);
    return still;
  });
}

grpc::Status NcclPeerService::NcclOpen(grpc::ServerContext* context,
                                       const v1::NcclOpenRequest* request,
                                       v1::NcclOpenResponse* response) {
  const AttachmentId attachment(request->attachment_id());
  return Serve(*context, attachment, [&]() -> absl::Status {
    REPRISE_ASSIGN_OR_RETURN(const lanes::NcclOpenCall call, CallOf(*request));
    REPRISE_ASSIGN_OR_RETURN(const lanes::NcclOpened opened,
                             host_->Open(attachment, call, DeadlineOf(*context)));
    response->set_blocks(opened.count);
    response->set_code(static_cast<uint32_t>(opened.status.code()));
    response->set_reason(RefusalReason(opened.status));
    response->set_sentence(std::string(opened.status.message()));
    return absl::OkStatus();
  });
}

grpc::Status NcclPeerService::NcclFinish(grpc::ServerContext* context,
                                         const v1::NcclFinishRequest* request,
                                         v1::NcclFinishResponse*) {
  const AttachmentId attachment(request->attachment_id());
  return Serve(*context, attachment, [&] {
    return host_->Finish(attachment, lanes::NcclLinkId(request->link_id()), request->sequence(),
                         DeadlineOf(*context));
  });
}

grpc::Status NcclPeerService::NcclHangup(grpc::ServerContext* context,
                                         const v1::NcclHangupRequest* request,
                                         v1::NcclHangupResponse*) {
  const AttachmentId attachment(request->attachment_id());
  return wire::ToGrpcStatus(Authorized(*context, attachment, [&] {
    host_->Hangup(attachment, lanes::NcclLinkId(request->link_id()));
    return absl::OkStatus();
  }));
}

}  // namespace reprise::cluster
