// Copies one chain to one peer: from the first block that the peer lacks, verified there against
// the checksums of the client that stored it; and the claims on it, as far as the peer takes them.
//
// Thread safety: a free function without shared state.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cluster/link/shard_link.h"
#include "cluster/peer/replication_source.h"
#include "proto/types/limits.h"

namespace reprise::cluster {

// The reason of the status when the chain is no longer stored here.
inline constexpr char kChainGone[] = "CHAIN_GONE";

struct CopiedChain {
  uint32_t blocks = 0;   // stored there now; what was present is not counted
  uint32_t pending = 0;  // that another is writing there
  uint64_t bytes = 0;
};

struct CopyOptions {
  absl::Time deadline = absl::InfiniteFuture();  // by absl::Now()
  // Of each call, and of each batch of blocks: a long chain takes as long as it takes, one that
  // does not move does not.
  absl::Duration batch_time = limits::kReplicationDeadline;
  bool spare_room = false;        // nothing of the peer's has to go for the copy
  std::function<bool()> stopped;  // asked between batches; empty: never
};

// Blocks are committed in batches, so that what a broken copy brought is kept. OK when all that is
// stored here of the chain is stored there too, or is being written there by another. NOT_FOUND
// (reason CHAIN_GONE) when nothing of what the peer lacks is stored here any more,
// RESOURCE_EXHAUSTED when the peer has no room for all of it, CANCELLED when it was stopped, else
// what the peer or the way to it said.
struct CopyOutcome {
  CopiedChain copied;
  absl::Status status;
};
CopyOutcome CopyChain(ShardLink& peer, ReplicationSource& source, const ReplicationJob& job,
                      const CopyOptions& options);

}  // namespace reprise::cluster
