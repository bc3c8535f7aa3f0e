// The feed of WatchBlocks between messages and types.
//
// Thread safety: free functions; no shared state.
#pragma once

#include <cstdint>
#include <variant>

#include "absl/status/statusor.h"
#include "proto/types/block_event.h"
#include "reprise/v1/shard.pb.h"

namespace reprise::wire {

v1::WatchBlocksResponse ToMessage(const BlockEvent& event, uint64_t sequence);
v1::WatchBlocksResponse ToMessage(const ShardHeartbeat& heartbeat, uint64_t sequence);

// One message of the feed.
struct WatchedMessage {
  uint64_t sequence = 0;
  std::variant<BlockEvent, ShardHeartbeat> what;
};

// INVALID_ARGUMENT naming the field for keys or fingerprints of a wrong length, unknown tiers, and
// messages without an event.
absl::StatusOr<WatchedMessage> FromMessage(const v1::WatchBlocksResponse& message);

}  // namespace reprise::wire
