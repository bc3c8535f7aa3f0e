// What a watcher of a shard sees: blocks that were stored or removed, in the order in which it took
// effect.
//
// Thread safety: values; no shared state.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "proto/types/block_key.h"
#include "proto/types/ids.h"

namespace reprise {

// Keys of one chain in prefix order.
struct BlockEvent {
  enum class Kind : uint8_t { kStored, kRemoved, kSnapshotEnd } kind = Kind::kStored;
  Tenant tenant;
  Fingerprint fingerprint;
  std::vector<BlockKey> keys;
  std::string session_id;   // kStored only; empty: none
  Tier tier = Tier::kDram;  // kStored only
  friend bool operator==(const BlockEvent&, const BlockEvent&) = default;
};

// Sent between events, so that a watcher can tell a quiet shard from a dead one.
struct ShardHeartbeat {
  uint64_t used_bytes = 0;
  uint64_t capacity_bytes = 0;
  bool draining = false;
  uint64_t peer_bytes_per_second = 0;  // between it and other shards; 0: not measured yet
  friend bool operator==(const ShardHeartbeat&, const ShardHeartbeat&) = default;
};

}  // namespace reprise
