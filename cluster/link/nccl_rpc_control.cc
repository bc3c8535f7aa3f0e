#include "cluster/link/nccl_rpc_control.h"

#include <grpcpp/client_context.h>

#include <utility>

#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "proto/wire/deadline.h"
#include "proto/wire/status.h"

namespace reprise::cluster {
namespace {

using Stub = v1::PeerService::Stub;

void SetDeadline(grpc::ClientContext& context, lanes::MonotonicDeadline deadline) {
  context.set_deadline(wire::ToGprDeadline(absl::Now() + deadline.left()));
}

absl::Status RefusalOf(const v1::NcclOpenResponse& response) {
  if (response.code() == 0) return absl::OkStatus();
  const auto code = static_cast<absl::StatusCode>(response.code());
  if (response.reason().empty()) return absl::Status(code, response.sentence());
  return Refusal(code, response.reason(), response.sentence());
}

}  // namespace

// The context of one call, which Interrupt reaches.
class NcclRpcControl::Call {
 public:
  Call(NcclRpcControl& control, lanes::MonotonicDeadline deadline) : control_(control) {
    SetDeadline(context_, deadline);
    absl::MutexLock lock(&control_.mu_);
    control_.under_way_.insert(&context_);
    if (control_.interrupted_) context_.TryCancel();
  }
  ~Call() {
    absl::MutexLock lock(&control_.mu_);
    control_.under_way_.erase(&context_);
  }
  grpc::ClientContext* context() { return &context_; }

 private:
  NcclRpcControl& control_;
  grpc::ClientContext context_;
};

absl::Status NcclRpcControl::Connect(const lanes::NcclConnectCall& call,
                                     lanes::MonotonicDeadline deadline) {
  v1::NcclConnectRequest request;
  request.set_attachment_id(attachment_.value);
  request.set_link_id(call.link.value);
  request.set_unique_id(call.id.internal, sizeof(call.id.internal));
  v1::NcclConnectResponse response;
  Call rpc(*this, deadline);
  return wire::FromGrpcStatus(stub_->NcclConnect(rpc.context(), request, &response));
}

absl::StatusOr<lanes::NcclOpened> NcclRpcControl::Open(const lanes::NcclOpenCall& call,
                                                       lanes::MonotonicDeadline deadline) {
  v1::NcclOpenRequest request;
  request.set_attachment_id(attachment_.value);
  request.set_link_id(call.link.value);
  request.set_sequence(call.sequence);
  request.set_block_bytes(call.block_bytes);
  if (call.writes()) {
    request.mutable_write()->set_reservation_id(call.reservation.value);
    request.mutable_write()->mutable_blocks()->Add(call.blocks.begin(), call.blocks.end());
  } else {
    request.mutable_read()->set_lease_id(call.lease.value);
    request.mutable_read()->set_first_block(call.first);
    request.mutable_read()->set_blocks(call.count);
  }
  v1::NcclOpenResponse response;
  Call rpc(*this, deadline);
  REPRISE_RETURN_IF_ERROR(wire::FromGrpcStatus(stub_->NcclOpen(rpc.context(), request, &response)));
  return lanes::NcclOpened{.count = response.blocks(), .status = RefusalOf(response)};
}

absl::Status NcclRpcControl::Finish(lanes::NcclLinkId link, uint64_t sequence,
                                    lanes::MonotonicDeadline deadline) {
  v1::NcclFinishRequest request;
  request.set_attachment_id(attachment_.value);
  request.set_link_id(link.value);
  request.set_sequence(sequence);
  v1::NcclFinishResponse response;
  Call rpc(*this, deadline);
  return wire::FromGrpcStatus(stub_->NcclFinish(rpc.context(), request, &response));
}

void NcclRpcControl::Hangup(lanes::NcclLinkId link) {
  struct Call {
    grpc::ClientContext context;
    v1::NcclHangupRequest request;
    v1::NcclHangupResponse response;
  };
  auto call = std::make_shared<Call>();
  call->request.set_attachment_id(attachment_.value);
  call->request.set_link_id(link.value);
  SetDeadline(call->context, lanes::MonotonicDeadline::After(limits::kNcclHangupTimeout));
  // Nobody waits for it: a shard that does not hear it has its own deadline.
  stub_->async()->NcclHangup(&call->context, &call->request, &call->response,
                             [call, stub = stub_](const grpc::Status&) {});
}

void NcclRpcControl::Interrupt() {
  absl::MutexLock lock(&mu_);
  interrupted_ = true;
  for (grpc::ClientContext* context : under_way_) context->TryCancel();
}

}  // namespace reprise::cluster
