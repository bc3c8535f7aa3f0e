// Hands everything that a shard stores to its peers, before it stops: the chains that were used
// last first, each to the shards that come next in its placement order, first one copy of every
// chain and then the others that it should have.
//
// What it copies takes the place of what peers have: at one peer, of what it holds beyond its room
// no more than this shard's memory divided by the number of shards, which is what each would drop
// if all were full and the hottest stayed. Beyond that, only room that is free.
//
// Invariants: a chain counts as safe when a peer holds all of it; chains that grow meanwhile are
// gone over again, kDrainRoundsMax times at most; it ends by its deadline and the time of one call.
// When no peer answers it ends at once, or after a few of the whiles for which they are left alone.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "cluster/peer/peers.h"
#include "cluster/peer/replication_source.h"

namespace reprise::cluster {

struct DrainOptions {
  Peers* peers = nullptr;               // REQUIRES: outlives the drain
  ReplicationSource* source = nullptr;  // REQUIRES: outlives the drain
  uint32_t replication = 2;             // copies that a chain should have when this shard is gone
  uint64_t capacity_bytes = 0;          // of this shard's memory
};

struct DrainProgress {
  bool begun = false;
  bool done = false;
  uint64_t chains = 0;       // stored here
  uint64_t chains_safe = 0;  // with a whole copy elsewhere
  uint64_t blocks_copied = 0;
  uint64_t bytes_copied = 0;

  // Name and value of each, for Describe.
  std::vector<std::pair<std::string, uint64_t>> Named() const;
  // "12 of 14 chains are on other shards, 200 blocks were copied".
  std::string Sentence() const;
};

class Drain {
 public:
  static std::unique_ptr<Drain> Create(DrainOptions options);
  virtual ~Drain() = default;  // stops; waits for the calls under way

  // Begins it, to end by `deadline` (by absl::Now()). While it runs: the earlier deadline holds.
  // When it is done and some chains are not safe, or there are new ones: goes over all once more.
  // REQUIRES: the shard takes no more writes.
  virtual void Start(absl::Time deadline) = 0;
  virtual DrainProgress progress() const = 0;
  // True once it is done.
  virtual bool Await(absl::Time deadline) = 0;
};

}  // namespace reprise::cluster
