#include "cluster/lanes/nccl/nccl_communicator.h"

#include <utility>

#include "cluster/lanes/lane_status.h"
#include "proto/types/status_macros.h"

namespace reprise::lanes {
namespace {
constexpr int kRanks = 2;
}

absl::StatusOr<std::unique_ptr<NcclCommunicator>> NcclCommunicator::Create(Options options) {
  REPRISE_RETURN_IF_ERROR(options.device->Enter());
  REPRISE_ASSIGN_OR_RETURN(std::unique_ptr<DeviceQueue> queue, options.device->CreateQueue());
  std::unique_ptr<NcclCommunicator> made(
      new NcclCommunicator(std::move(options), std::move(queue)));
  const Options& o = made->options_;
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  const ncclResult_t result =
      o.nccl->CommInitRankConfig(&made->comm_, kRanks, o.id, o.rank, &config);
  REPRISE_RETURN_IF_ERROR(o.nccl->ToStatus(result, "ncclCommInitRankConfig"));
  return made;
}

NcclCommunicator::~NcclCommunicator() {
  Abort();
}

absl::StatusOr<bool> NcclCommunicator::Poll() {
  ncclResult_t state = ncclSuccess;
  REPRISE_RETURN_IF_ERROR(options_.nccl->ToStatus(options_.nccl->CommGetAsyncError(comm_, &state),
                                                  "ncclCommGetAsyncError"));
  REPRISE_RETURN_IF_ERROR(options_.nccl->ToStatus(state, "the communicator"));
  if (state == ncclInProgress) return false;
  absl::StatusOr<bool> idle = queue_->Idle();
  if (!idle.ok()) return LaneDown(idle.status().message());
  return idle;
}

absl::Status NcclCommunicator::Begin(const NcclGroup& group) {
  const NcclLibrary& nccl = *options_.nccl;
  const int peer = 1 - options_.rank;
  REPRISE_RETURN_IF_ERROR(nccl.ToStatus(nccl.GroupStart(), "ncclGroupStart"));
  absl::Status status;
  for (const std::span<const uint8_t> part : group.sends) {
    if (!status.ok()) break;
    status = nccl.ToStatus(
        nccl.Send(part.data(), part.size(), ncclUint8, peer, comm_, queue_->handle()), "ncclSend");
  }
  for (const std::span<uint8_t> part : group.receives) {
    if (!status.ok()) break;
    status = nccl.ToStatus(
        nccl.Recv(part.data(), part.size(), ncclUint8, peer, comm_, queue_->handle()), "ncclRecv");
  }
  const absl::Status ended = nccl.ToStatus(nccl.GroupEnd(), "ncclGroupEnd");
  return status.ok() ? ended : status;
}

void NcclCommunicator::Abort() {
  if (ncclComm_t comm = std::exchange(comm_, nullptr); comm != nullptr) {
    // Whatever it answers, there is nothing else that could be done.
    static_cast<void>(options_.nccl->CommAbort(comm));
  }
}

}  // namespace reprise::lanes
