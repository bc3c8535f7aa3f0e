// Which shards to ask for a session, home first: from a router, from memory for a second (and for
// longer while a router is asked), or, when no router answers, computed here from the shards last
// known.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/cpp/executor.h"
#include "client/cpp/route_memory.h"
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

  // What is remembered of a session, however long ago; nullopt: nothing.
  std::optional<RouteMemory::Recalled> Recall(const RouteCall& call) const;
  // Begins to ask for order and runs; what is answered is remembered, also when nobody waits.
  // REQUIRES: there is a router. `call` is read before this returns.
  std::unique_ptr<PendingRoute> Ask(const RouteCall& call, absl::Time deadline);
  // What that came to, as OrderAndRuns.
  absl::StatusOr<Route> Await(PendingRoute& asked, const RouteCall& call, absl::Time deadline);

  // The session's home failed: ask anew.
  void Forget(const RouteCall& call);
  // Whether a prompt went on beyond what its home has: then routers are asked early the next time.
  void NoteRanOut(const RouteCall& call, bool ran_out);
  // Every shard that is known, living or not.
  std::vector<ShardTarget> AllShards(absl::Time deadline);

 private:
  absl::StatusOr<Route> AskRouter(const RouteCall& call, absl::Time deadline);
  // The order over the shards last known, by the placement that routers use.
  absl::StatusOr<Route> Compute(const RouteCall& call, const absl::Status& why);
  void LearnStaticShards(absl::Time deadline);

  const RoutesOptions options_;
  ShardSet& shards_;
  Executor& executor_;
  const std::shared_ptr<RouteMemory> memory_;  // shared with questions under way
};

}  // namespace reprise::client
