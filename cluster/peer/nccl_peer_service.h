// A shard's PeerService: its NCCL links, to callers that are attached.
//
// Invariants: no more than kNcclPeerCallsMax calls are served at once, more are refused; NcclHangup
// never is, since it frees what others wait for.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <functional>

#include "absl/status/status.h"
#include "cluster/lanes/nccl/nccl_host.h"
#include "reprise/v1/peer.grpc.pb.h"

namespace reprise::cluster {

// Synchronous, since NcclFinish waits: gRPC brings the threads.
class NcclPeerService final : public v1::PeerService::Service {
 public:
  // OK when the caller behind `context` owns the attachment, else what it is told. An attachment
  // that ends is refused before the host's EndAttachment.
  using Authorize =
      std::function<absl::Status(const grpc::ServerContext& context, AttachmentId attachment)>;

  // REQUIRES: `host` outlives the server that this is registered with.
  NcclPeerService(lanes::NcclHost* host, Authorize authorize)
      : host_(host), authorize_(std::move(authorize)) {}

  grpc::Status NcclConnect(grpc::ServerContext* context, const v1::NcclConnectRequest* request,
                           v1::NcclConnectResponse* response) override;
  grpc::Status NcclOpen(grpc::ServerContext* context, const v1::NcclOpenRequest* request,
                        v1::NcclOpenResponse* response) override;
  grpc::Status NcclFinish(grpc::ServerContext* context, const v1::NcclFinishRequest* request,
                          v1::NcclFinishResponse* response) override;
  grpc::Status NcclHangup(grpc::ServerContext* context, const v1::NcclHangupRequest* request,
                          v1::NcclHangupResponse* response) override;

 private:
  // Runs `verb` for a caller that is let in.
  template <typename Verb>
  absl::Status Authorized(const grpc::ServerContext& context, AttachmentId attachment, Verb verb);
  // The same, when there are not too many calls.
  template <typename Verb>
  grpc::Status Serve(const grpc::ServerContext& context, AttachmentId attachment, Verb verb);

  lanes::NcclHost* const host_;
  const Authorize authorize_;
  std::atomic<size_t> calls_{0};
};

}  // namespace reprise::cluster
