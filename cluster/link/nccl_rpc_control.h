// What an NCCL lane says to its shard, over the shard's PeerService.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <grpcpp/channel.h>

#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/synchronization/mutex.h"
#include "cluster/lanes/nccl/nccl_control.h"
#include "reprise/v1/peer.grpc.pb.h"

namespace reprise::cluster {

class NcclRpcControl final : public lanes::NcclControl {
 public:
  NcclRpcControl(const std::shared_ptr<grpc::Channel>& channel, AttachmentId attachment)
      : stub_(v1::PeerService::NewStub(channel)), attachment_(attachment) {}

  absl::Status Connect(const lanes::NcclConnectCall& call,
                       lanes::MonotonicDeadline deadline) override;
  absl::StatusOr<lanes::NcclOpened> Open(const lanes::NcclOpenCall& call,
                                         lanes::MonotonicDeadline deadline) override;
  absl::Status Finish(lanes::NcclLinkId link, uint64_t sequence,
                      lanes::MonotonicDeadline deadline) override;
  void Hangup(lanes::NcclLinkId link) override;
  void Interrupt() override;

 private:
  class Call;

  const std::shared_ptr<v1::PeerService::Stub> stub_;
  const AttachmentId attachment_;
  absl::Mutex mu_;
  bool interrupted_ ABSL_GUARDED_BY(mu_) = false;
  absl::flat_hash_set<grpc::ClientContext*> under_way_ ABSL_GUARDED_BY(mu_);
};

}  // namespace reprise::cluster
