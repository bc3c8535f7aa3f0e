#include "cluster/peer/pull_chain.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::cluster {
namespace {

// Reads into `slots` what the lease has of them, and commits what came.
absl::Status Fill(ShardLink& peer, const AcquiredRun& run, ChainSlots& slots, absl::Time deadline,
                  PulledChain& pulled) {
  const uint32_t end = std::min(slots.end(), run.run_blocks);
  if (end <= slots.first()) return absl::OkStatus();
  const absl::Status read = peer.lane().Read({.lease = run.lease,
                                              .first = slots.first(),
                                              .blocks = end - slots.first(),
                                              .block_bytes = slots.block_bytes()},
                                             slots.sink(), deadline);
  if (slots.filled() == 0) return read;
  const std::span<const Checksum128> checksums =
      std::span(run.checksums).subspan(slots.first() - run.first_block, slots.filled());
  REPRISE_RETURN_IF_ERROR(slots.Commit(checksums));
  pulled.blocks += slots.filled();
  pulled.bytes += slots.filled() * slots.block_bytes();
  return read;
}

absl::Status Pull(ShardLink& peer, PullTarget& target, const ReplicationJob& job,
                  absl::Time deadline, PulledChain& pulled) {
  REPRISE_ASSIGN_OR_RETURN(const OpenedSpec spec, peer.OpenSpec(job.spec, deadline));
  REPRISE_ASSIGN_OR_RETURN(const uint32_t stored, target.Stored(job));
  if (stored >= job.keys.size()) return absl::OkStatus();
  REPRISE_ASSIGN_OR_RETURN(const AcquiredRun run,
                           peer.Acquire(spec.handle, job.keys, stored, deadline));
  if (!run.lease) return absl::OkStatus();
  const auto release = absl::MakeCleanup([&] {
    if (peer.alive()) (void)peer.Release(run.lease, absl::Now() + limits::kReleaseDeadline);
  });
  // Room for what the peer has, and no more.
  ReplicationJob part = job;
  part.keys.resize(run.run_blocks);
  if (!part.token_ids.empty())
    part.token_ids.resize(size_t{run.run_blocks} * job.spec.block_tokens);
  REPRISE_ASSIGN_OR_RETURN(const std::unique_ptr<ChainSlots> slots, target.Reserve(part));
  if (slots->first() < run.first_block) {
    return Refusal(absl::StatusCode::kAborted, "CHAIN_SHRANK",
                   absl::StrCat("of ", run.first_block, " blocks that were stored here ",
                                run.first_block - slots->first(), " went meanwhile: pull again"));
  }
  if (slots->block_bytes() != spec.block_bytes && slots->first() < slots->end()) {
    return Refusal(absl::StatusCode::kFailedPrecondition, "BLOCK_BYTES",
                   absl::StrCat("a block has ", spec.block_bytes, " bytes at the peer and ",
                                slots->block_bytes(), " here: run one version on all shards"));
  }
  return Fill(peer, run, *slots, deadline, pulled);
}

}  // namespace

PullOutcome PullChain(ShardLink& peer, PullTarget& target, const ReplicationJob& job,
                      absl::Time deadline) {
  PullOutcome outcome;
  outcome.status = Pull(peer, target, job, deadline, outcome.pulled);
  return outcome;
}

}  // namespace reprise::cluster
