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
    const absl::StatusOr<CopiedChain> copied =
        CopyTo(peer, job, std::min(order.deadline, absl::Now() + options_.deadline));
    if (RefusalReason(copied.status()) == kChainGone) {
      made.gone = true;
      break;
    }
    // A refusal is an answer too.
    const bool silent =
        absl::IsUnavailable(copied.status()) || absl::IsDeadlineExceeded(copied.status());
    made.reached += silent ? 0 : 1;
    if (!copied.ok()) continue;
    made.copies += copied->pending == 0 ? 1 : 0;
    made.pending += copied->pending == 0 ? 0 : 1;
    made.blocks += copied->blocks;
    made.bytes += copied->bytes;
  }
  return made;
}

absl::StatusOr<CopiedChain> ChainCopier::CopyTo(const Member& peer, const ReplicationJob& job,
                                                absl::Time deadline) {
  REPRISE_ASSIGN_OR_RETURN(const std::shared_ptr<ShardLink> link,
                           peers_.Link(peer, PeerUse::kWrite, options_.doing, deadline));
  const absl::Time started = peers_.clock().Now();
  const absl::StatusOr<CopiedChain> copied =
      CopyChain(*link, source_, job, {.deadline = deadline, .spare_room = !MayDisplaceAt(peer.id)});
  if (copied.ok()) {
    peers_.CallSucceeded(peer);
    peers_.NoteMoved(copied->bytes, peers_.clock().Now() - started);
    absl::MutexLock lock(&mu_);
    bytes_to_[peer.id] += copied->bytes;
  } else if (RefusalReason(copied.status()) != kChainGone) {
    peers_.CallFailed(peer, options_.doing, copied.status());
  }
  return copied;
}

bool ChainCopier::MayDisplaceAt(const ShardId& peer) const {
  absl::MutexLock lock(&mu_);
  const auto at = bytes_to_.find(peer);
  return at == bytes_to_.end() || at->second < options_.displaced_bytes_max;
}

}  // namespace reprise::cluster
