// ShardService.Pull: brings a chain from another shard. It waits for the network, so it has threads
// of its own.
//
// Invariants: at most limits::kPullsMax are under way or wait; more are refused at once.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <atomic>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cluster/peer/replication_source.h"
#include "reprise/v1/shard.pb.h"
#include "service/shard/handlers/shard_core.h"
#include "service/shard/work_queue.h"

namespace reprise::shard {

class PullHandler {
 public:
  explicit PullHandler(ShardCore& core);
  grpc::ServerUnaryReactor* Open(grpc::CallbackServerContext* context,
                                 const v1::PullRequest* request, v1::PullResponse* response);

 private:
  absl::StatusOr<Admission::Ticket> Admit();
  absl::StatusOr<cluster::ReplicationJob> JobOf(Tenant tenant, const v1::PullRequest& request);
  absl::Status Handle(const wire::Caller& caller, const v1::PullRequest& request,
                      absl::Time deadline, v1::PullResponse& response);

  ShardCore& core_;
  const std::shared_ptr<std::atomic<size_t>> under_way_;
  WorkQueue workers_;  // last: its jobs use the others
};

}  // namespace reprise::shard
