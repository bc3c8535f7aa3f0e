// Chains that wait for their copies: bounded, the oldest leave first, and the chains of one session
// stay in one lane, so that two workers never write the same chain to the same peer at once.
//
// Invariants: as Replicator says.
//
// Thread safety: none; the replicator serialises.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "cluster/peer/replication_source.h"

namespace reprise::cluster {

class ReplicationQueue {
 public:
  ReplicationQueue(size_t lanes, size_t blocks_max) : lanes_(lanes), blocks_max_(blocks_max) {}

  // The number of older chains that were dropped for it.
  size_t Push(ReplicationJob job);
  std::optional<ReplicationJob> Pop(size_t lane);
  bool HasWork(size_t lane) const { return !lanes_[lane].empty(); }
  bool empty() const;
  // New blocks that wait, each chain counted as one at least.
  size_t blocks() const { return blocks_; }

 private:
  struct Waiting {
    uint64_t number = 0;  // order of arrival over all lanes
    ReplicationJob job;
  };
  void DropOldest();

  std::vector<std::deque<Waiting>> lanes_;
  const size_t blocks_max_;
  size_t blocks_ = 0;
  uint64_t arrived_ = 0;
};

}  // namespace reprise::cluster
