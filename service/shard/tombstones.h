// What became of the keys that are no longer stored: when they went, and why. Bounded; the oldest
// are forgotten.
//
// Thread safety: none; the engine holds its lock.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "service/index/block_index.h"

namespace reprise::shard {

enum class DropCause : uint8_t {
  kWatermark,    // evicted in the background
  kOwnSpace,     // evicted for another block of its key space
  kReclaim,      // evicted to give memory to another key space
  kQuota,        // evicted for another block of its tenant, which is at its quota
  kRemoved,      // by a client's Remove
  kQuarantined,  // its own bytes were wrong
  kBeneathQuarantined,
  kTierLost,  // it, or a block before it, lay on a device that is lost
};

bool IsEviction(DropCause cause);

struct Tombstone {
  DropCause cause = DropCause::kWatermark;
  KeySpaceId for_space;  // kReclaim: who got the memory
  int64_t unix_ms = 0;
  std::string detail;  // removed, quarantined: by whom, why
};

class Tombstones {
 public:
  explicit Tombstones(size_t max) : max_(max) {}

  void Add(const SpaceKey& key, Tombstone tombstone);
  void Erase(const SpaceKey& key) { stones_.erase(key); }
  const Tombstone* Find(const SpaceKey& key) const;
  size_t size() const { return stones_.size(); }

 private:
  struct Stone {
    Tombstone tombstone;
    uint64_t number = 0;
  };

  const size_t max_;
  uint64_t next_number_ = 0;
  absl::flat_hash_map<SpaceKey, Stone> stones_;
  std::deque<std::pair<uint64_t, SpaceKey>> order_;  // some may be erased or set anew since
};

}  // namespace reprise::shard
