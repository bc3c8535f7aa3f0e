// ShardService.WatchBlocks: what is stored, as a feed with sequence numbers and heartbeats.
//
// Invariants: sequence numbers of one stream rise by one with every message; a watcher that falls
// behind is ended with RESOURCE_EXHAUSTED and never sees a gap.
//
// Thread safety: all methods may be called from any thread; gRPC owns what Open returns.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "reprise/v1/shard.pb.h"
#include "service/shard/handlers/shard_core.h"

namespace reprise::shard {

class WatchStream;

class WatchBlocksHandler {
 public:
  explicit WatchBlocksHandler(ShardCore& core) : core_(core) {}

  grpc::ServerWriteReactor<v1::WatchBlocksResponse>* Open(grpc::CallbackServerContext* context);
  // Sends a heartbeat to every watcher. Called every kHeartbeatInterval.
  void Beat();
  // Ends every watch, those that are not there yet included.
  void EndAll(const absl::Status& why);

 private:
  friend class WatchStream;
  absl::StatusOr<std::unique_ptr<BlockWatch>> WatchFor(const grpc::CallbackServerContext& context);

  ShardCore& core_;
  absl::Mutex mu_;
  absl::flat_hash_set<WatchStream*> streams_ ABSL_GUARDED_BY(mu_);
  absl::Status ended_ ABSL_GUARDED_BY(mu_);  // not OK: all have
};

}  // namespace reprise::shard
