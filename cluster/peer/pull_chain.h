// Brings what this shard lacks of one chain from one peer, verified here against the checksums of
// the client that stored it.
//
// Thread safety: a free function without shared state.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cluster/link/shard_link.h"
#include "cluster/peer/pull_target.h"

namespace reprise::cluster {

struct PulledChain {
  uint32_t blocks = 0;  // stored here now that were not before
  uint64_t bytes = 0;
};

// OK with no blocks when the peer has no more than this shard, or when others are writing what is
// missing. After a transfer that broke, the blocks that had come are kept and the status says why
// there are not more. `deadline` is a point of absl::Now().
struct PullOutcome {
  PulledChain pulled;
  absl::Status status;
};
PullOutcome PullChain(ShardLink& peer, PullTarget& target, const ReplicationJob& job,
                      absl::Time deadline);

}  // namespace reprise::cluster
