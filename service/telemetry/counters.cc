#include "service/telemetry/counters.h"

namespace reprise::shard {

const char* CounterName(Counter counter) {
  switch (counter) {
    case Counter::kLookups:
      return "lookups_total";
    case Counter::kAcquires:
      return "acquires_total";
    case Counter::kHitBlocks:
      return "hit_blocks_total";
    case Counter::kMissBlocks:
      return "miss_blocks_total";
    case Counter::kHitTokens:
      return "hit_tokens_total";
    case Counter::kMissTokens:
      return "miss_tokens_total";
    case Counter::kReadBlocks:
      return "read_blocks_total";
    case Counter::kReadBytes:
      return "read_bytes_total";
    case Counter::kReservedBlocks:
      return "reserved_blocks_total";
    case Counter::kPendingBlocks:
      return "pending_blocks_total";
    case Counter::kStoredBlocks:
      return "stored_blocks_total";
    case Counter::kStoredBytes:
      return "stored_bytes_total";
    case Counter::kDuplicateBlocks:
      return "duplicate_blocks_total";
    case Counter::kEvictedWatermarkBlocks:
      return "evicted_watermark_blocks_total";
    case Counter::kEvictedOwnSpaceBlocks:
      return "evicted_own_space_blocks_total";
    case Counter::kEvictedQuotaBlocks:
      return "evicted_quota_blocks_total";
    case Counter::kEvictedReclaimBlocks:
      return "evicted_reclaim_blocks_total";
    case Counter::kEvictedClaimedBlocks:
      return "evicted_claimed_blocks_total";
    case Counter::kMovedBlocks:
      return "moved_blocks_total";
    case Counter::kReclaimedExtents:
      return "reclaimed_extents_total";
    case Counter::kDemotedBlocks:
      return "demoted_blocks_total";
    case Counter::kDemotedBytes:
      return "demoted_bytes_total";
    case Counter::kDemotionsGivenUp:
      return "demotions_given_up_total";
    case Counter::kRemovedBlocks:
      return "removed_blocks_total";
    case Counter::kHintedEvictBlocks:
      return "hinted_evict_blocks_total";
    case Counter::kHintedDemoteBlocks:
      return "hinted_demote_blocks_total";
    case Counter::kClaimsPlaced:
      return "claims_placed_total";
    case Counter::kClaimsClipped:
      return "claims_clipped_total";
    case Counter::kClaimsEnded:
      return "claims_ended_total";
    case Counter::kQuarantinedBlocks:
      return "quarantined_blocks_total";
    case Counter::kLostBlocks:
      return "lost_blocks_total";
    case Counter::kRestoredBlocks:
      return "restored_blocks_total";
    case Counter::kAdoptedBlocks:
      return "adopted_blocks_total";
    case Counter::kUnadoptedBlocks:
      return "unadopted_blocks_total";
    case Counter::kScrubbedBlocks:
      return "scrubbed_blocks_total";
    case Counter::kCorruptBlocks:
      return "corrupt_blocks_total";
    case Counter::kExpiredLeases:
      return "expired_leases_total";
    case Counter::kExpiredReservations:
      return "expired_reservations_total";
    case Counter::kExpiredAttachments:
      return "expired_attachments_total";
    case Counter::kCutOffWatchers:
      return "cut_off_watchers_total";
    case Counter::kRefusedNoSpace:
      return "refused_no_space_total";
    case Counter::kRefusedTenantQuota:
      return "refused_tenant_quota_total";
    case Counter::kRefusedClaims:
      return "refused_claims_total";
    case Counter::kRefusedAttachments:
      return "refused_attachments_total";
    case Counter::kRefusedSpecs:
      return "refused_specs_total";
    case Counter::kRefusedSpecDiffers:
      return "refused_spec_differs_total";
    case Counter::kRefusedLeases:
      return "refused_leases_total";
    case Counter::kRefusedReservations:
      return "refused_reservations_total";
    case Counter::kRefusedWatchers:
      return "refused_watchers_total";
    case Counter::kRefusedNotWritten:
      return "refused_not_written_total";
    case Counter::kRefusedInvalid:
      return "refused_invalid_total";
    case Counter::kCount:
      break;
  }
  return "";
}

std::vector<std::pair<std::string, uint64_t>> Counters::Snapshot() const {
  std::vector<std::pair<std::string, uint64_t>> all;
  for (size_t i = 0; i < values_.size(); ++i) {
    const auto counter = static_cast<Counter>(i);
    all.emplace_back(CounterName(counter), Get(counter));
  }
  return all;
}

}  // namespace reprise::shard
