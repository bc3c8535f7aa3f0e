// Copies one chain to as many of the next shards of its placement order as are asked for: what the
// replicator and a drain have in common.
//
// Invariants: a peer that is left alone, or has no room, is passed over for the next one; what one
// copier has peers drop for its copies stays under a bound for each, beyond which it takes only
// room that they have to spare.
//
// Thread safety: all methods may be called from any thread; two copies of chains with one first
// block are best made by one thread, since what another one is writing counts as missing.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "cluster/peer/copy_chain.h"
#include "cluster/peer/peers.h"
#include "cluster/peer/replication_source.h"
#include "proto/types/limits.h"

namespace reprise::cluster {

struct ChainCopierOptions {
  absl::string_view doing = "replication to";                // for the log
  absl::Duration batch_time = limits::kReplicationDeadline;  // of CopyOptions
  // Bytes for which one peer may have to drop others that are colder.
  uint64_t displaced_bytes_max = std::numeric_limits<uint64_t>::max();
};

struct CopyOrder {
  uint32_t copies = 1;  // on other shards
  absl::Time deadline = absl::InfiniteFuture();
  std::function<bool()> stopped;  // asked between peers, and between batches; empty: never
};

struct CopiesMade {
  uint32_t copies = 0;   // peers that hold all of it
  uint32_t pending = 0;  // others to which somebody is writing it
  uint32_t reached = 0;  // peers that answered
  uint32_t blocks = 0;   // written now
  uint64_t bytes = 0;
  bool gone = false;  // nothing of what a peer lacked is stored here any more
};

class ChainCopier {
 public:
  // REQUIRES: `peers` and `source` outlive this.
  ChainCopier(Peers& peers, ReplicationSource& source, ChainCopierOptions options = {})
      : peers_(peers), source_(source), options_(options) {}

  CopiesMade Copy(const ReplicationJob& job, const CopyOrder& order);

 private:
  CopyOutcome CopyTo(const Member& peer, const ReplicationJob& job, const CopyOrder& order);
  bool MayDisplaceAt(const ShardId& peer) const;

  Peers& peers_;
  ReplicationSource& source_;
  const ChainCopierOptions options_;
  mutable absl::Mutex mu_;
  absl::flat_hash_map<ShardId, uint64_t> bytes_to_ ABSL_GUARDED_BY(mu_);
};

}  // namespace reprise::cluster
