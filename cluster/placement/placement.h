// Which shard keeps which chain: weighted rendezvous order (Thaler and Ravishankar, "Using
// name-based mappings to increase hit rates", 1998; weights after Schindelhauer and Schomaker,
// 2005). Every process that knows the same members computes the same order, without any shared
// state.
//
// Invariants: the order depends on nothing but the key and the members' ids and weights; a member
// that joins or leaves never changes the order of the others, so that only about 1/N of the keys
// move.
//
// Thread safety: free functions without shared state.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "proto/types/block_key.h"
#include "proto/types/ids.h"

namespace reprise::cluster {

struct PlacementMember {
  ShardId id;
  double weight = 1.0;  // share of the keys against the others'. REQUIRES: > 0 and finite
};

// What stands for a chain: its session id, or the hex of its first key. Empty when there is
// neither.
std::string PlacementKey(absl::string_view session_id, std::span<const BlockKey> keys);

// Indexes into `members`, the shard that comes first for `key` first. O(n log n).
std::vector<uint32_t> PlacementOrder(absl::string_view key,
                                     std::span<const PlacementMember> members);

// The same for members of equal weight, as ids.
std::vector<ShardId> PlacementOrder(absl::string_view key, std::span<const ShardId> ids);

}  // namespace reprise::cluster
