// What routers said lately: the order of shards for each session, and which shards there are.
//
// Invariants: at most limits::kRoutesCachedMax sessions. Thread safety: all methods may be called
// from any thread, also by answers that come when nobody waits for them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/cpp/router_client.h"
#include "proto/types/clock.h"

namespace reprise::client {

class RouteMemory {
 public:
  // REQUIRES: `clock` outlives this.
  explicit RouteMemory(const Clock& clock) : clock_(clock) {}

  struct Recalled {
    std::vector<ShardTarget> order;
    absl::Duration age;    // since a router said it
    bool ran_out = false;  // the last prompt of it went on beyond what its home has
  };
  // `key` is the session's placement key.
  std::optional<Recalled> Recall(absl::string_view key) const;

  void Learn(absl::string_view key, const std::vector<ShardTarget>& order);
  void Forget(absl::string_view key);
  // Of a session that is remembered.
  void NoteRanOut(absl::string_view key, bool ran_out);

  // Sorted by id.
  std::vector<ShardTarget> KnownShards() const;
  void SetKnownShards(std::vector<ShardTarget> shards);

 private:
  struct Remembered {
    std::vector<ShardTarget> order;
    absl::Time at;
    bool ran_out = false;
  };
  const Clock& clock_;
  mutable absl::Mutex mu_;
  absl::flat_hash_map<std::string, Remembered> sessions_ ABSL_GUARDED_BY(mu_);
  std::vector<ShardTarget> known_ ABSL_GUARDED_BY(mu_);
};

}  // namespace reprise::client
