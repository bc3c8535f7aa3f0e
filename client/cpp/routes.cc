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

std::string CacheKey(const RouteCall& call) {
  return cluster::PlacementKey(call.session, call.keys);
}

}  // namespace

Routes::Routes(RoutesOptions options, ShardSet& shards, Executor& executor)
    : options_(std::move(options)),
      clock_(options_.clock != nullptr ? *options_.clock : MonotonicClock()),
      shards_(shards),
      executor_(executor) {}

absl::StatusOr<Route> Routes::Order(const RouteCall& call, absl::Time deadline) {
  {
    absl::MutexLock lock(&mu_);
    const auto at = cache_.find(CacheKey(call));
    if (at != cache_.end() && clock_.Now() - at->second.at < limits::kRouteTtl) {
      return Route{.order = at->second.order, .runs_known = false, .runs = {}};
    }
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
  absl::MutexLock lock(&mu_);
  if (cache_.size() >= limits::kRoutesCachedMax) cache_.clear();
  cache_[CacheKey(call)] = Cached{route.order, clock_.Now()};
  // What routers name are the living shards: they are what placement is computed from.
  known_ = route.order;
  std::sort(known_.begin(), known_.end(),
            [](const ShardTarget& a, const ShardTarget& b) { return a.id < b.id; });
  return route;
}

absl::StatusOr<Route> Routes::Compute(const RouteCall& call, const absl::Status& why) {
  absl::MutexLock lock(&mu_);
  std::vector<ShardId> ids;
  for (const ShardTarget& target : known_) ids.push_back(target.id);
  if (ids.empty()) return why;
  Route route;
  for (const ShardId& id : cluster::PlacementOrder(CacheKey(call), ids)) {
    const auto at = std::find_if(known_.begin(), known_.end(),
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
  absl::MutexLock lock(&mu_);
  known_.clear();
  for (const std::string& address : options_.shards) {
    if (ShardId id = shards_.IdOf(address); !id.name.empty())
      known_.push_back({std::move(id), address});
  }
}

void Routes::Forget(const RouteCall& call) {
  absl::MutexLock lock(&mu_);
  cache_.erase(CacheKey(call));
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
  absl::MutexLock lock(&mu_);
  return known_;
}

}  // namespace reprise::client
