// RouterService.WatchTopology: the shards and their states, now and at every change. A watcher that
// reads slowly sees the newest topology and not each one in between.
//
// Invariants: the epochs of one stream rise; a watcher has one message on its way at most.
//
// Thread safety: all methods may be called from any thread; gRPC owns what Open returns.
#pragma once

#include <grpcpp/support/server_callback.h>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "proto/types/clock.h"
#include "reprise/v1/router.pb.h"
#include "service/router/router_engine.h"

namespace reprise::router {

class TopologyStream;

class WatchTopologyHandler {
 public:
  WatchTopologyHandler(const RouterEngine& engine, const Clock& clock)
      : engine_(engine), clock_(clock) {}

  // `caller` not OK: the stream ends with that. RESOURCE_EXHAUSTED beyond kTopologyWatchersMax.
  grpc::ServerWriteReactor<v1::WatchTopologyResponse>* Open(const absl::Status& caller);
  // Tells every watcher of the newest topology if its epoch is new. Called every
  // kRouterTickInterval.
  void Tick();
  size_t watchers() const {
    absl::MutexLock lock(&mu_);
    return streams_.size();
  }
  // Ends every stream, and those to come.
  void EndAll(const absl::Status& why);

 private:
  friend class TopologyStream;
  v1::WatchTopologyResponse Newest() const;

  const RouterEngine& engine_;
  const Clock& clock_;
  // Taken before a stream's own.
  mutable absl::Mutex mu_;
  Epoch told_ ABSL_GUARDED_BY(mu_);
  absl::Status end_ ABSL_GUARDED_BY(mu_);  // not OK: nothing is opened any more
  absl::flat_hash_set<TopologyStream*> streams_ ABSL_GUARDED_BY(mu_);
};

}  // namespace reprise::router
