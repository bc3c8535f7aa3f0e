// The cluster as one process sees it: its shards and their states, at one epoch.
//
// Invariants: shards are sorted by id, each id once; two snapshots of one process with the same
// epoch differ in used bytes at most.
//
// Thread safety: values; no shared state.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "proto/types/ids.h"

namespace reprise::cluster {

// Mirrors reprise.v1.ShardState.
enum class ShardState : uint8_t {
  kAlive = 1,
  kDraining = 2,  // readable, not written to
  kDead = 3,      // not heard for kHeartbeatsMissedMax heartbeats, or never
  kSyncing = 4,   // alive, its snapshot is not complete yet
};

const char* ShardStateName(ShardState state);  // "alive", "draining", "dead", "syncing"

struct TopologyShard {
  ShardId id;
  std::string address;  // host:port
  double weight = 1.0;
  ShardState state = ShardState::kDead;
  uint64_t used_bytes = 0;
  uint64_t capacity_bytes = 0;
};

struct Topology {
  Epoch epoch;
  std::vector<TopologyShard> shards;
};

// May be asked for blocks.
inline bool IsReadable(ShardState state) {
  return state != ShardState::kDead;
}
// May be home to a chain.
inline bool IsWritable(ShardState state) {
  return state == ShardState::kAlive || state == ShardState::kSyncing;
}

}  // namespace reprise::cluster
