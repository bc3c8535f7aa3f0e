// Brings chains from other shards to this one, when somebody asks for it: a client whose session's
// home this is now, or a gateway that knows of a prompt before it comes.
//
// Invariants: blocks come from members of the cluster alone, whatever a caller names; what is
// pulled is not copied on; of several peers the one with the longest run is read from, and the next
// one when that does not come to an end.
//
// Thread safety: all methods may be called from any thread. Pull blocks.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cluster/link/shard_link.h"
#include "cluster/peer/peers.h"
#include "cluster/peer/pull_target.h"

namespace reprise::cluster {

struct PullerCounters {
  uint64_t pulls = 0;
  uint64_t pulls_failed = 0;
  uint64_t blocks = 0;
  uint64_t bytes = 0;

  // Name and value of each, for Describe.
  std::vector<std::pair<std::string, uint64_t>> Named() const;
};

class Puller {
 public:
  // REQUIRES: `peers` and `target` outlive this.
  Puller(Peers& peers, PullTarget& target) : peers_(peers), target_(target) {}

  // Tries until this shard stores as much of `job.keys` as a peer does. `from` without a name: the
  // first kPullPeersMax of the placement order are asked how much they have. NOT_FOUND (reason
  // PEER_UNKNOWN) when `from` is no other member, RESOURCE_EXHAUSTED without room; else what the
  // peer said, or OK. `deadline` is a point of absl::Now().
  absl::StatusOr<PulledRun> Pull(const ReplicationJob& job, const ShardId& from,
                                 absl::Time deadline);
  PullerCounters counters() const;

 private:
  absl::StatusOr<std::vector<Member>> Sources(const ReplicationJob& job, const ShardId& from,
                                              uint32_t stored, absl::Time deadline);
  absl::StatusOr<uint32_t> AskHowMuch(const Member& peer, const ReplicationJob& job,
                                      absl::Time deadline);
  absl::Status PullFrom(const Member& peer, const ReplicationJob& job, absl::Time deadline,
                        PulledRun& run);
  absl::StatusOr<PulledRun> TryAll(const ReplicationJob& job, const ShardId& from,
                                   absl::Time deadline);

  Peers& peers_;
  PullTarget& target_;
  std::atomic<uint64_t> pulls_{0}, failed_{0}, blocks_{0}, bytes_{0};
};

}  // namespace reprise::cluster
