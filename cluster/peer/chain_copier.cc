#include "cluster/peer/chain_copier.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/time/clock.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::cluster {

CopiesMade ChainCopier::Copy(const ReplicationJob& job, const CopyOrder& order) {
  CopiesMade made;
  for (const Member& peer : peers_.InOrder(job.session_id, job.keys)) {
    if (made.copies + made.pending >= order.copies) break;
    if (order.stopped && order.stopped()) break;
    const auto [copied, status] = CopyTo(peer, job, order);
    made.blocks += copied.blocks;
    made.bytes += copied.bytes;
    if (RefusalReason(status) == kChainGone) {
      made.gone = true;
      break;
    }
    // A refusal is an answer too.
    const bool silent = absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
    made.reached += silent ? 0 : 1;
    if (!status.ok()) continue;
    made.copies += copied.pending == 0 ? 1 : 0;
    made.pending += copied.pending == 0 ? 0 : 1;
  }
  return made;
}

CopyOutcome ChainCopier::CopyTo(const Member& peer, const ReplicationJob& job,
                                const CopyOrder& order) {
  const absl::StatusOr<std::shared_ptr<ShardLink>> link =
      peers_.Link(peer, job.tenant, PeerUse::kWrite, options_.doing,
                  std::min(order.deadline, absl::Now() + options_.batch_time));
  if (!link.ok()) return {.status = link.status()};
  const absl::Time started = peers_.clock().Now();
  CopyOutcome outcome = CopyChain(**link, source_, job,
                                  {.deadline = order.deadline,
                                   .batch_time = options_.batch_time,
                                   .spare_room = !MayDisplaceAt(peer.id),
                                   .stopped = order.stopped});
  peers_.NoteMoved(outcome.copied.bytes, peers_.clock().Now() - started);
  if (outcome.status.ok()) {
    peers_.CallSucceeded(peer);
  } else if (RefusalReason(outcome.status) != kChainGone && !absl::IsCancelled(outcome.status)) {
    peers_.CallFailed(peer, options_.doing, outcome.status);
  }
  absl::MutexLock lock(&mu_);
  bytes_to_[peer.id] += outcome.copied.bytes;
  return outcome;
}

bool ChainCopier::MayDisplaceAt(const ShardId& peer) const {
  absl::MutexLock lock(&mu_);
  const auto at = bytes_to_.find(peer);
  return at == bytes_to_.end() || at->second < options_.displaced_bytes_max;
}

}  // namespace reprise::cluster
