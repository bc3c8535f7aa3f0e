#include "client/cpp/routes.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cluster/placement/placement.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::client {
namespace {

std::string SessionKey(const RouteCall& call) {
  return cluster::PlacementKey(call.session, call.keys);
}

}  // namespace

Routes::Routes(RoutesOptions options, ShardSet& shards, Executor& executor)
    : options_(std::move(options)),
      shards_(shards),
      executor_(executor),
      memory_(std::make_shared<RouteMemory>(options_.clock != nullptr ? *options_.clock
                                                                      : MonotonicClock())) {}

absl::StatusOr<Route> Routes::Order(const RouteCall& call, absl::Time deadline) {
  std::optional<RouteMemory::Recalled> known = Recall(call);
  if (known.has_value() && known->age < limits::kRouteTtl) {
    return Route{.order = std::move(known->order), .runs_known = false, .runs = {}};
  }
  return OrderAndRuns(call, deadline);
}

absl::StatusOr<Route> Routes::OrderAndRuns(const RouteCall& call, absl::Time deadline) {
  if (options_.router == nullptr) {
    LearnStaticShards(deadline);
    return Compute(call, absl::UnavailableError("none of the client's shards could be reached"));
  }
  absl::StatusOr<Route> route = AskRouter(call, deadline);
  if (route.ok()) return route;
  return Compute(call, route.status());
}

absl::StatusOr<Route> Routes::AskRouter(const RouteCall& call, absl::Time deadline) {
  REPRISE_ASSIGN_OR_RETURN(Route route, options_.router->RouteSession(call, deadline));
  memory_->Learn(SessionKey(call), route.order);
  return route;
}

std::optional<RouteMemory::Recalled> Routes::Recall(const RouteCall& call) const {
  return memory_->Recall(SessionKey(call));
}

std::unique_ptr<PendingRoute> Routes::Ask(const RouteCall& call, absl::Time deadline) {
  return options_.router->StartRouteSession(
      call, deadline, [memory = memory_, key = SessionKey(call)](const Route& route) {
        memory->Learn(key, route.order);
      });
}

absl::StatusOr<Route> Routes::Await(PendingRoute& asked, const RouteCall& call,
                                    absl::Time deadline) {
  absl::StatusOr<Route> route = asked.Await(deadline);
  if (route.ok()) return route;
  return Compute(call, route.status());
}

absl::StatusOr<Route> Routes::Compute(const RouteCall& call, const absl::Status& why) {
  const std::vector<ShardTarget> known = memory_->KnownShards();
  std::vector<ShardId> ids;
  for (const ShardTarget& target : known) ids.push_back(target.id);
  if (ids.empty()) return why;
  Route route;
  for (const ShardId& id : cluster::PlacementOrder(SessionKey(call), ids)) {
    const auto at = std::find_if(known.begin(), known.end(),
                                 [&](const ShardTarget& target) { return target.id == id; });
    route.order.push_back(*at);
  }
  return route;
}

void Routes::LearnStaticShards(absl::Time deadline) {
  std::vector<std::function<void()>> unknown;
  for (const std::string& address : options_.shards) {
    if (shards_.IdOf(address).name.empty()) {
      unknown.push_back([this, address, deadline] { (void)shards_.Get(address, deadline); });
    }
  }
  executor_.RunAll(std::move(unknown));
  std::vector<ShardTarget> known;
  for (const std::string& address : options_.shards) {
    if (ShardId id = shards_.IdOf(address); !id.name.empty())
      known.push_back({std::move(id), address});
  }
  memory_->SetKnownShards(std::move(known));
}

void Routes::Forget(const RouteCall& call) {
  memory_->Forget(SessionKey(call));
}

void Routes::NoteRanOut(const RouteCall& call, bool ran_out) {
  memory_->NoteRanOut(SessionKey(call), ran_out);
}

std::vector<ShardTarget> Routes::AllShards(absl::Time deadline) {
  if (options_.router == nullptr) {
    LearnStaticShards(deadline);
    std::vector<ShardTarget> all;
    for (const std::string& address : options_.shards)
      all.push_back({shards_.IdOf(address), address});
    return all;
  }
  absl::StatusOr<std::vector<ShardTarget>> all = options_.router->Shards(deadline);
  if (all.ok()) return *std::move(all);
  return memory_->KnownShards();
}

}  // namespace reprise::client
