// Copies committed chains to the next shards of their placement order, in the background. A copy is
// made with the checksums of the client that stored the blocks, so that the peer verifies what the
// client meant.
//
// Invariants: Submit never blocks; at most kReplicationQueueBlocksMax new blocks wait (one larger
// chain alone may exceed it), the oldest chains are dropped first and counted; a chain is copied
// from its first missing block on, so that a peer never holds a hole; a peer that does not answer
// is skipped for a while and the next one is tried; a chain that found too few peers waits, in a
// queue of the same bound, until the members change or a peer that did not answer may be tried
// again.
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
#include "proto/types/limits.h"

namespace reprise::cluster {

struct ReplicatorOptions {
  uint32_t replication = 2;  // copies of a chain, this shard's included; 1: none elsewhere
  Peers* peers = nullptr;    // REQUIRES: outlives the replicator
  ReplicationSource* source = nullptr;                       // REQUIRES: outlives the replicator
  absl::Duration batch_time = limits::kReplicationDeadline;  // of CopyOptions
};

struct ReplicatorCounters {
  uint64_t chains_submitted = 0;
  uint64_t chains_done = 0;     // all copies made, or present already
  uint64_t chains_short = 0;    // times that a chain got fewer copies than asked, and waits
  uint64_t chains_dropped = 0;  // pushed out of the queue
  uint64_t chains_gone = 0;     // evicted here before they were copied
  uint64_t blocks_copied = 0;
  uint64_t bytes_copied = 0;
  uint64_t blocks_queued = 0;  // now

  // Name and value of each, for Describe.
  std::vector<std::pair<std::string, uint64_t>> Named() const;
};

class Replicator {
 public:
  static std::unique_ptr<Replicator> Create(ReplicatorOptions options);
  virtual ~Replicator() = default;  // stops: what waits is dropped, what runs ends by its deadline

  virtual void Submit(ReplicationJob job) = 0;
  virtual ReplicatorCounters counters() const = 0;
  // True once nothing waits and nothing runs; false when that did not come by `timeout`.
  virtual bool WaitIdle(absl::Duration timeout) = 0;
};

}  // namespace reprise::cluster
