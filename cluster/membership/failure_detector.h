// Who is alive: heartbeats in, states out. Time is an argument.
//
// Invariants: a shard is alive from a heartbeat on until `missed_max` intervals have passed without
// another; a shard never heard is not alive.
//
// Thread safety: none; the owner serialises.
#pragma once

#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "proto/types/ids.h"
#include "proto/types/limits.h"

namespace reprise::cluster {

struct FailureDetectorOptions {
  absl::Duration interval = limits::kHeartbeatInterval;
  int missed_max = limits::kHeartbeatsMissedMax;
};

class FailureDetector {
 public:
  struct Change {
    ShardId id;
    bool alive = false;
  };

  explicit FailureDetector(FailureDetectorOptions options = {})
      : silence_max_(options.interval * options.missed_max) {}

  // Heard from `id`, whatever it said. True when it was not alive before.
  bool Heartbeat(const ShardId& id, absl::Time now);
  void Forget(const ShardId& id) { heard_.erase(id); }

  bool IsAlive(const ShardId& id, absl::Time now) const;
  // Time since `id` was last heard; infinite when it never was.
  absl::Duration Silence(const ShardId& id, absl::Time now) const;

  // Those that turned alive or dead since the last Check, by id.
  std::vector<Change> Check(absl::Time now);

 private:
  struct Heard {
    absl::Time last;
    bool told_alive = false;
  };
  const absl::Duration silence_max_;
  absl::flat_hash_map<ShardId, Heard> heard_;
};

}  // namespace reprise::cluster
