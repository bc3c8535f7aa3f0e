// What a shard counts. Every counter exists, at 0, from the start, so that a graph never has to
// guess whether a missing series means "none" or "not measured".
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace reprise::shard {

enum class Counter : uint8_t {
  kLookups,
  kAcquires,
  kHitBlocks,  // of Acquire: blocks asked for that were stored
  kMissBlocks,
  kHitTokens,
  kMissTokens,
  kReadBlocks,  // opened for reading by a lane
  kReadBytes,
  kReservedBlocks,
  kPendingBlocks,  // answered PENDING by Reserve
  kStoredBlocks,
  kStoredBytes,
  kDuplicateBlocks,         // discarded: the first bytes stay
  kEvictedWatermarkBlocks,  // by the background, above the high watermark
  kEvictedOwnSpaceBlocks,   // for another block of the same key space
  kEvictedReclaimBlocks,    // to give an extent to another key space
  kEvictedQuotaBlocks,      // for another block of a tenant at its quota
  kEvictedClaimedBlocks,    // of all of these, those on which a claim rested
  kMovedBlocks,             // between slots, to empty an extent
  kReclaimedExtents,
  kDemotedBlocks,  // moved to a slower tier
  kDemotedBytes,
  kDemotionsGivenUp,  // blocks taken into use meanwhile, corrupt, or refused by the device
  kRemovedBlocks,
  kHintedEvictBlocks,   // dropped by Hint's Evict
  kHintedDemoteBlocks,  // moved by Hint's Demote; also demoted
  kClaimsPlaced,
  kClaimsClipped,  // that could not keep, or go on to, all of their prefix
  kClaimsEnded,    // at their time
  kQuarantinedBlocks,
  kLostBlocks,       // with the device of their tier
  kRestoredBlocks,   // found on a kept disk at the start, and taken over
  kAdoptedBlocks,    // of them, those that waited and are stored since
  kUnadoptedBlocks,  // of them, those that waited and were let go
  kScrubbedBlocks,   // of them, read and checked after a crash
  kCorruptBlocks,    // checksum at Commit did not match
  kExpiredLeases,
  kExpiredReservations,
  kExpiredAttachments,
  kCutOffWatchers,
  kRefusedNoSpace,
  kRefusedTenantQuota,
  kRefusedClaims,
  kRefusedAttachments,  // each: beyond the limit of that name
  kRefusedSpecs,
  kRefusedSpecDiffers,
  kRefusedLeases,
  kRefusedReservations,
  kRefusedWatchers,
  kRefusedNotWritten,  // Commit of a block whose bytes or parent are missing
  kRefusedInvalid,     // arguments at odds with each other
  kCount,              // not a counter
};

// "stored_blocks_total".
const char* CounterName(Counter counter);

class Counters {
 public:
  void Add(Counter counter, uint64_t count = 1) {
    values_[static_cast<size_t>(counter)].fetch_add(count, std::memory_order_relaxed);
  }
  uint64_t Get(Counter counter) const {
    return values_[static_cast<size_t>(counter)].load(std::memory_order_relaxed);
  }
  // All of them, in the order above.
  std::vector<std::pair<std::string, uint64_t>> Snapshot() const;

 private:
  std::array<std::atomic<uint64_t>, static_cast<size_t>(Counter::kCount)> values_{};
};

}  // namespace reprise::shard
