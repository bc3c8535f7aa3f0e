// Blocks that were evicted a while ago, remembered without their bytes: whether they are asked for
// again is what the order of eviction learns from.
//
// Invariants: the one remembered longest is dropped first.
// Thread safety: none; the caller holds the lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"

namespace reprise::shard {

struct Ghost {
  uint32_t uses = 0;      // while it was stored, and before
  uint64_t last_use = 0;  // of EvictionOrder's counter
};

class Ghosts {
 public:
  // In place of an older one of the same key.
  void Add(uint64_t key, const Ghost& ghost);
  // Forgets it. nullopt: there is none.
  std::optional<Ghost> Take(uint64_t key);
  // Forgets the oldest. nullopt: there is none.
  std::optional<Ghost> TakeOldest();

  size_t size() const { return ghosts_.size(); }
  // What is kept of the order besides: a few times size() at most.
  size_t turns() const { return turns_.size(); }

 private:
  static constexpr size_t kTurnsPerGhostMax = 2;
  static constexpr size_t kTurnsSpare = 64;  // so that few ghosts are not sorted out all the time

  struct Entry {
    Ghost ghost;
    uint64_t turn = 0;
  };
  bool IsCurrent(uint64_t turn, uint64_t key) const;
  void DropStaleTurns();

  absl::flat_hash_map<uint64_t, Entry> ghosts_;
  std::deque<std::pair<uint64_t, uint64_t>> turns_;  // (turn, key), oldest first; some are stale
  uint64_t next_turn_ = 0;
};

}  // namespace reprise::shard
