// Which shards to ask for a session, home first: from a router, from memory for a second, or, when
// no router answers, computed here from the shards last known.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/cpp/executor.h"
#include "client/cpp/router_client.h"
#include "client/cpp/shard_set.h"
#include "proto/types/clock.h"

namespace reprise::client {

struct RoutesOptions {
  std::unique_ptr<RouterClient> router;  // nullptr: `shards` are all there are
  std::vector<std::string> shards;       // addresses
  const Clock* clock = nullptr;          // nullptr: the monotonic clock
};

class Routes {
 public:
  // REQUIRES: `shards` and `executor` outlive it.
  Routes(RoutesOptions options, ShardSet& shards, Executor& executor);

  // The placement order alone, from memory when it is fresh.
  absl::StatusOr<Route> Order(const RouteCall& call, absl::Time deadline);
  // The order and who holds what. Route::runs_known is false when no router answered.
  absl::StatusOr<Route> OrderAndRuns(const RouteCall& call, absl::Time deadline);
  // The session's home failed: ask anew.
  void Forget(const RouteCall& call);
  // Every shard that is known, living or not.
  std::vector<ShardTarget> AllShards(absl::Time deadline);

 private:
  struct Cached {
    std::vector<ShardTarget> order;
    absl::Time at;
  };
  absl::StatusOr<Route> AskRouter(const RouteCall& call, absl::Time deadline);
  // The order over the shards last known, by the placement that routers use.
  absl::StatusOr<Route> Compute(const RouteCall& call, const absl::Status& why);
  void LearnStaticShards(absl::Time deadline);

  const RoutesOptions options_;
  const Clock& clock_;
  ShardSet& shards_;
  Executor& executor_;
  absl::Mutex mu_;
  absl::flat_hash_map<std::string, Cached> cache_ ABSL_GUARDED_BY(mu_);  // by placement key
  std::vector<ShardTarget> known_ ABSL_GUARDED_BY(mu_);                  // sorted by id
};

}  // namespace reprise::client
