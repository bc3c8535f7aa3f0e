#include "client/cpp/route_memory.h"

#include <algorithm>
#include <utility>

#include "proto/types/limits.h"

namespace reprise::client {

std::optional<RouteMemory::Recalled> RouteMemory::Recall(absl::string_view key) const {
  absl::MutexLock lock(&mu_);
  const auto at = sessions_.find(key);
  if (at == sessions_.end()) return std::nullopt;
  const Remembered& it = at->second;
  return Recalled{.order = it.order, .age = clock_.Now() - it.at, .ran_out = it.ran_out};
}

void RouteMemory::Learn(absl::string_view key, const std::vector<ShardTarget>& order) {
  // What routers name are the living shards: they are what placement is computed from.
  SetKnownShards(order);
  absl::MutexLock lock(&mu_);
  if (sessions_.size() >= limits::kRoutesCachedMax && !sessions_.contains(key)) sessions_.clear();
  Remembered& it = sessions_[key];
  it.order = order;
  it.at = clock_.Now();
}

void RouteMemory::Forget(absl::string_view key) {
  absl::MutexLock lock(&mu_);
  sessions_.erase(key);
}

void RouteMemory::NoteRanOut(absl::string_view key, bool ran_out) {
  absl::MutexLock lock(&mu_);
  const auto at = sessions_.find(key);
  if (at != sessions_.end()) at->second.ran_out = ran_out;
}

std::vector<ShardTarget> RouteMemory::KnownShards() const {
  absl::MutexLock lock(&mu_);
  return known_;
}

void RouteMemory::SetKnownShards(std::vector<ShardTarget> shards) {
  std::sort(shards.begin(), shards.end(),
            [](const ShardTarget& a, const ShardTarget& b) { return a.id < b.id; });
  absl::MutexLock lock(&mu_);
  known_ = std::move(shards);
}

}  // namespace reprise::client
