// One attached connection to one shard: the control verbs over gRPC, or those that a prompt waits
// for over the shard's tcp port where that is in reach, and the bytes over the best lane that both
// ends share. Clients hold one per shard; a shard holds one per peer.
//
// Invariants: keep-alives run while the link lives; when the attach stream ends, alive() turns
// false for good and every later call is UNAVAILABLE: make a new link.
//
// Thread safety: all methods may be called from any thread. Calls block until they are done or the
// deadline (a point of absl::Now()) is over.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cluster/lanes/lane.h"
#include "cluster/link/nccl_context.h"
#include "proto/types/block_key.h"
#include "proto/types/cache_spec.h"
#include "proto/types/checksum128.h"
#include "proto/types/hints.h"
#include "proto/types/ids.h"
#include "proto/types/verbs.h"

namespace reprise::wire {
class Credentials;
}

namespace reprise::cluster {

struct ShardLinkOptions {
  std::string address;  // host:port
  std::string client_name = "unnamed";
  std::vector<LaneKind> lanes = {LaneKind::kStream};     // lanes that the caller is able to use
  std::shared_ptr<const NcclContext> nccl;               // for kNccl among them; nullptr: without
  std::shared_ptr<const wire::Credentials> credentials;  // nullptr: plaintext
  // Whose blocks are read and written, for a caller of the cluster's own; no name: the caller's.
  Tenant tenant;
};

struct OpenedSpec {
  SpecHandle handle;
  Fingerprint fingerprint;
  uint64_t block_bytes = 0;
  uint32_t replication = 0;
};

using reprise::ReserveOutcome;
using TierBlocks = TierRun;

struct AcquiredRun {
  LeaseId lease;                       // none when nothing was leased
  uint32_t run_blocks = 0;             // stored prefix, counted from block 0
  uint32_t first_block = 0;            // leased: [first_block, run_blocks)
  std::vector<Checksum128> checksums;  // one per leased block
  std::vector<TierBlocks> tiers;
};

struct ReserveCall {
  SpecHandle spec;
  std::span<const BlockKey> keys;
  std::string session_id;
  std::span<const uint32_t> token_positions;  // empty: i * block_tokens
  std::span<const uint32_t> token_ids;        // empty: unknown
  bool replica = false;
  bool spare_room = false;  // take only room that nothing has to go for
};

struct ReservedRun {
  ReservationId reservation;             // none when nothing was granted
  std::vector<ReserveOutcome> outcomes;  // one per key
};

struct CommittedRun {
  uint32_t committed = 0;
  uint32_t duplicate = 0;
};

// A Commit that is under way.
class PendingCommit {
 public:
  // Gives up waiting; what the shard has committed stays committed.
  virtual ~PendingCommit() = default;
  // Its answer; DEADLINE_EXCEEDED when there is none by `deadline`. Once.
  virtual absl::StatusOr<CommittedRun> Await(absl::Time deadline) = 0;
};

class AnsweredCommit final : public PendingCommit {
 public:
  explicit AnsweredCommit(absl::StatusOr<CommittedRun> answer) : answer_(std::move(answer)) {}
  absl::StatusOr<CommittedRun> Await(absl::Time) override { return answer_; }

 private:
  const absl::StatusOr<CommittedRun> answer_;
};

struct PullCall {
  SpecHandle spec;
  std::span<const BlockKey> keys;
  std::string session_id;
  std::span<const uint32_t> token_ids;  // empty: unknown
  ShardId from;  // no name: the shard asks the next ones of the placement order
};

struct PulledRun {
  uint32_t run_blocks = 0;     // stored at the shard now, from block 0
  uint32_t pulled_blocks = 0;  // of them by this call
  ShardId from;                // no name: nothing was pulled
};

struct HintCall {
  SpecHandle spec;
  std::span<const BlockKey> keys;  // kRelease: none
  reprise::Hint hint;
};

class ShardLink {
 public:
  // Dials, attaches and waits for the welcome. UNAVAILABLE or DEADLINE_EXCEEDED when the shard does
  // not answer, PERMISSION_DENIED when it does not serve this caller, or not as that tenant.
  static absl::StatusOr<std::unique_ptr<ShardLink>> Connect(ShardLinkOptions options,
                                                            absl::Time deadline);
  // May take its time: where links are dropped by those who have none, see link_reaper.h.
  virtual ~ShardLink() = default;
  // Ends the attachment; alive() is false. Returns at once, and what lanes have under way ends in
  // the background.
  virtual void Close() {}

  virtual bool alive() const = 0;
  virtual bool draining() const = 0;
  virtual const ShardId& shard_id() const = 0;

  // Opens `spec` once per link; later calls with an equal spec answer from memory.
  virtual absl::StatusOr<OpenedSpec> OpenSpec(const CacheSpec& spec, absl::Time deadline) = 0;
  virtual absl::StatusOr<uint32_t> Lookup(SpecHandle spec, std::span<const BlockKey> keys,
                                          absl::Time deadline) = 0;
  virtual absl::StatusOr<AcquiredRun> Acquire(SpecHandle spec, std::span<const BlockKey> keys,
                                              uint32_t first_block, absl::Time deadline) = 0;
  virtual absl::Status Release(LeaseId lease, absl::Time deadline) = 0;
  virtual absl::StatusOr<ReservedRun> Reserve(const ReserveCall& call, absl::Time deadline) = 0;
  virtual absl::StatusOr<CommittedRun> Commit(ReservationId reservation,
                                              std::span<const uint32_t> blocks,
                                              std::span<const Checksum128> checksums,
                                              absl::Time deadline) = 0;
  // The same, and need not wait for the answer: the blocks that come next may be written meanwhile,
  // and committed after it. `deadline` is the call's own. Waits all the same, unless a link knows
  // better.
  virtual std::unique_ptr<PendingCommit> StartCommit(ReservationId reservation,
                                                     std::span<const uint32_t> blocks,
                                                     std::span<const Checksum128> checksums,
                                                     absl::Time deadline) {
    return std::make_unique<AnsweredCommit>(Commit(reservation, blocks, checksums, deadline));
  }
  // The shard brings blocks that it lacks from another one. Takes as long as moving them does.
  virtual absl::StatusOr<PulledRun> Pull(const PullCall& call, absl::Time deadline) = 0;
  virtual absl::StatusOr<HintResult> Hint(const HintCall& call, absl::Time deadline) = 0;

  // The fastest lane that both ends share.
  virtual lanes::Lane& lane() = 0;
};

}  // namespace reprise::cluster
