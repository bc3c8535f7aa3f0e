// The heart of a shard: the one place where index, pool, eviction, leases and lanes meet. No gRPC
// in sight.
//
// Blocks lie on tiers, the fastest first: new ones on the fastest that has room, and the coldest
// ones move down when a tier is nearly full. A block that moves is stored and readable all the
// time.
//
// Invariants (CheckInvariants recomputes them from nothing):
//   - a committed block's parent is committed here, or it is a chain's first block: what is stored
//     is a forest;
//   - only childless blocks without a lease or pin are evicted, what nobody claims and is worth
//     least first (service/eviction/eviction_order.h);
//   - a block with a lease or a pin of a reader stays where it is, and none is readable on another
//     tier before its checksum was verified there;
//   - a slot belongs to exactly one of: free, one reservation, one committed block, quarantine;
//   - used bytes are the sum over slots that are not free;
//   - a key is written once: the first committed bytes stay;
//   - no block is stored on a tier whose device or disk is lost.
//
// Thread safety: all methods may be called from any thread. Payload copies and checksums run
// outside the lock.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cluster/lanes/lane.h"
#include "proto/types/block_event.h"
#include "proto/types/block_key.h"
#include "proto/types/cache_spec.h"
#include "proto/types/checksum128.h"
#include "proto/types/clock.h"
#include "proto/types/hints.h"
#include "proto/types/ids.h"
#include "proto/types/limits.h"
#include "proto/types/verbs.h"
#include "service/eviction/eviction_order.h"
#include "service/journal/disk_key.h"
#include "service/pool/extent_place.h"
#include "service/pool/file_cipher.h"
#include "service/pool/hbm_device.h"
#include "service/shard/tenant_quotas.h"

namespace reprise::shard {

struct ShardEngineOptions {
  ShardId id;
  uint64_t dram_bytes = 0;  // capacity of the dram pool; faulted in by Create; 0: none
  uint64_t hbm_bytes = 0;   // capacity of the hbm pool, taken by Create; 0: none
  std::unique_ptr<HbmDevice> hbm_device;  // REQUIRES: there is one when hbm_bytes > 0
  uint64_t nvme_bytes = 0;                // capacity of the file pool, beside another one; 0: none
  std::string nvme_folder;                // where its file is
  DiskCipher nvme_cipher = DiskCipher::kAes256;  // of its file
  bool nvme_keep = false;             // what is there is there for the next process of this id too
  std::unique_ptr<DiskKey> nvme_key;  // REQUIRES: there is one when it is kept and enciphered
  uint32_t replication = 1;           // told to clients by OpenSpec
  TenantQuotas quotas;
  Eviction eviction = Eviction::kLearned;
  double claimed_share = limits::kClaimedShare;  // of memory and quotas, for claims; 0: none
  std::function<void(absl::string_view)> log;    // sentences, from any thread; empty: none
  const Clock* clock = nullptr;     // REQUIRES: outlives the engine; nullptr: the monotonic clock
  bool background_eviction = true;  // a thread that keeps the pools below the high watermark
  bool background_scrub = true;     // a thread that checks what a crash left on a kept disk
};

struct TierUse {
  Tier tier = Tier::kDram;
  uint64_t capacity_bytes = 0;
  uint64_t used_bytes = 0;
  uint64_t blocks = 0;  // stored there, of all tenants
  bool lost = false;    // its device is: it holds no block and takes none until the shard restarts
};

// A disk that is kept over restarts.
struct KeptDiskUse {
  uint64_t restored_blocks = 0;  // found at the start and taken over, also those that wait
  uint64_t waiting_blocks = 0;   // of them, now: what they hang from is not stored, or not checked
  uint64_t to_scrub_blocks = 0;  // of those, not checked yet
  bool clean = false;            // the last process ended in order: nothing had to be checked
  std::string why_empty;         // a sentence, where something was found and cannot be used
  std::string why_not_kept;      // a sentence: the next process will find nothing
};

using reprise::BlockEvent;
using reprise::Explanation;
using reprise::MissReason;
using reprise::ReserveOutcome;
using reprise::TierRun;

struct LookupResult {
  uint32_t run_blocks = 0;
  std::vector<TierRun> tiers;
};

struct AcquireArgs {
  SpecHandle spec;
  std::span<const BlockKey> keys;
  uint32_t first_block = 0;
  absl::Duration ttl;  // zero: limits::kLeaseTtl
};

struct AcquireResult {
  LeaseId lease;
  uint32_t run_blocks = 0;
  std::vector<Checksum128> checksums;  // of [first_block, run_blocks)
  std::vector<TierRun> tiers;
};

struct ReserveArgs {
  SpecHandle spec;
  std::span<const BlockKey> keys;
  std::string session_id;
  std::span<const uint32_t> token_positions;  // empty: i * block_tokens; else one per key
  std::span<const uint32_t> token_ids;        // empty: unknown; else block_tokens per key
  absl::Duration ttl;                         // until a Commit; zero: limits::kReservationTtl
  bool replica = false;
  bool spare_room = false;  // grant only room that nothing has to go for, now or soon
};

struct ReserveResult {
  ReservationId reservation;
  std::vector<ReserveOutcome> outcomes;
};

struct CommitArgs {
  ReservationId reservation;
  std::span<const uint32_t> blocks;        // empty: all granted
  std::span<const Checksum128> checksums;  // one per block
};

struct CommitResult {
  uint32_t committed = 0;
  uint32_t duplicate = 0;
};

struct RemoveResult {
  uint32_t removed = 0;
  uint32_t leased = 0;
};

struct SaveResult {
  uint64_t in_memory = 0;  // blocks that are there still: leased ones, or time was short
  uint64_t dropped = 0;    // for want of room on the disk
};

struct HintArgs {
  SpecHandle spec;
  std::span<const BlockKey> keys;  // the whole prefix, from its first block
  reprise::Hint hint;
};

// One watcher's bounded queue. Events come in the order in which they took effect, the snapshot
// first.
class BlockWatch {
 public:
  virtual ~BlockWatch() = default;
  // The next event, or nullopt when none came until `deadline` (by absl::Now(); InfinitePast does
  // not wait). RESOURCE_EXHAUSTED when the watcher fell behind kWatchQueueEventsMax; it is then of
  // no more use.
  virtual absl::StatusOr<std::optional<BlockEvent>> Next(absl::Time deadline) = 0;
  // Calls `ready` whenever events are waiting, from an engine thread that holds no lock of the
  // engine, and at once when some are waiting already. `ready` must not block, change what is
  // stored, or destroy this watch. No call runs or comes after the watch is destroyed.
  virtual void NotifyWith(std::function<void()> ready) = 0;
};

// A committed run that wants a replica. The listener must not block.
struct CommittedChain {
  Tenant tenant;
  CacheSpec spec;
  std::string session_id;
  std::vector<BlockKey> keys;       // the whole chain, from its first block
  std::vector<uint32_t> token_ids;  // empty: unknown
  uint32_t first_new = 0;           // keys before it were stored already
  std::vector<ChainClaim> claims;   // on it; of ChainTo
};

// The last block of a stored chain, and the chain's first one.
struct ChainEnd {
  Tenant tenant;
  Fingerprint fingerprint;
  BlockKey first;
  BlockKey last;
};

struct SpecUse {
  Tenant tenant;
  Fingerprint fingerprint;
  CacheSpec spec;
  uint64_t block_bytes = 0;
  uint64_t blocks = 0;
};

struct TenantUse {
  Tenant tenant;
  uint64_t used_bytes = 0;   // of its blocks, on all tiers: stored, being written or held back
  uint64_t quota_bytes = 0;  // TenantQuotas::kNone: none
};

// What this shard would have served with other amounts of memory, as if it dropped the least
// recently used block: an estimate (service/sizing/reuse_curve.h).
struct SizingEstimate {
  struct Point {
    uint64_t memory_bytes = 0;
    uint64_t hit_tokens = 0;
    double of_capacity = 0;  // memory_bytes beside what this shard has
  };
  uint64_t asked_tokens = 0;  // in the prompts of all Acquires
  std::vector<Point> points;  // the least memory first
};

// Bytes of slots that claims keep, over all tenants.
struct ClaimsUse {
  uint64_t claims = 0;
  uint64_t claimed_bytes = 0, claimed_bytes_max = 0;
  uint64_t pinned_bytes = 0, pinned_bytes_max = 0;  // of the claimed ones
};

struct EngineDescription {
  std::vector<TierUse> tiers;
  std::optional<KeptDiskUse> kept_disk;  // nullopt: none is
  std::vector<TenantUse> tenants;        // those that have opened a spec here
  std::vector<SpecUse> specs;
  uint64_t blocks = 0, leases = 0, reservations = 0, attachments = 0, watchers = 0;
  std::vector<std::pair<std::string, uint64_t>> counters;
  SizingEstimate sizing;
  ClaimsUse claims;
};

struct OpenSpecResult {
  SpecHandle handle;
  Fingerprint fingerprint;
  uint64_t block_bytes = 0;
};

class ShardEngine : public lanes::LaneHost {
 public:
  // RESOURCE_EXHAUSTED when the memory or the room on disk cannot be had, INVALID_ARGUMENT when
  // neither hbm nor dram has any, or nvme_folder takes no file. With nvme_keep also as
  // KeptDisk::Open says.
  static absl::StatusOr<std::unique_ptr<ShardEngine>> Create(ShardEngineOptions options);

  // ---- Presence. Every other verb refuses an unknown attachment with NOT_FOUND (reason
  // ATTACHMENT_UNKNOWN).
  virtual absl::StatusOr<AttachmentId> Attach(const Tenant& tenant,
                                              absl::string_view client_name) = 0;
  virtual absl::Status KeepAlive(AttachmentId attachment) = 0;  // extends its leases
  virtual void Detach(AttachmentId attachment) = 0;             // ends its leases and reservations

  virtual absl::StatusOr<OpenSpecResult> OpenSpec(AttachmentId attachment, const CacheSpec& spec,
                                                  const std::optional<Fingerprint>& expected) = 0;

  // ---- Verbs (semantics: proto/reprise/v1/shard.proto)
  virtual absl::StatusOr<LookupResult> Lookup(AttachmentId attachment, SpecHandle spec,
                                              std::span<const BlockKey> keys) = 0;
  virtual absl::StatusOr<AcquireResult> Acquire(AttachmentId attachment,
                                                const AcquireArgs& args) = 0;
  virtual absl::StatusOr<uint32_t> Release(AttachmentId attachment,
                                           std::span<const LeaseId> leases) = 0;
  virtual absl::StatusOr<ReserveResult> Reserve(AttachmentId attachment,
                                                const ReserveArgs& args) = 0;
  // The spec of `args.spec`, when Reserve would not refuse these arguments whatever is stored.
  virtual absl::StatusOr<CacheSpec> Validate(AttachmentId attachment, const ReserveArgs& args) = 0;
  // Whether Reserve may copy and check blocks, to make room for others: it can then take as long as
  // a Commit.
  virtual bool ReserveCopies() const = 0;
  virtual absl::StatusOr<CommitResult> Commit(AttachmentId attachment, const CommitArgs& args) = 0;
  virtual absl::StatusOr<RemoveResult> Remove(AttachmentId attachment, SpecHandle spec,
                                              std::span<const BlockKey> keys) = 0;
  virtual absl::StatusOr<HintResult> Hint(AttachmentId attachment, const HintArgs& args) = 0;
  virtual absl::StatusOr<Explanation> Explain(const Tenant& tenant, const Fingerprint& fingerprint,
                                              std::span<const BlockKey> keys,
                                              std::span<const uint32_t> token_ids) = 0;

  // ---- Feeds
  // RESOURCE_EXHAUSTED beyond kWatchersMax. The watch must be destroyed before the engine.
  virtual absl::StatusOr<std::unique_ptr<BlockWatch>> Watch() = 0;
  // Not called for replica writes. An empty listener: nobody is told.
  virtual void OnCommitted(std::function<void(CommittedChain)> listener) = 0;

  // Every stored chain that is no other one's beginning, the one used last first.
  virtual std::vector<ChainEnd> Chains() const = 0;
  // All of it, every block counted as new; nullopt: its end is not stored any more.
  virtual std::optional<CommittedChain> ChainTo(const ChainEnd& end) const = 0;

  // With the specs of one tenant; nullopt: of all.
  virtual EngineDescription Describe(const std::optional<Tenant>& tenant) const = 0;

  // ---- Upkeep
  // Ends what is overdue: silent attachments, leases, reservations. The service calls it a few
  // times a second.
  virtual void Tick() = 0;
  // Brings every tier that is above the high watermark down to the low one: blocks move to the next
  // tier, and leave the last one. The background thread calls it; tests may.
  virtual void EvictToWatermark() = 0;
  // Reads and checks what a crash left on a disk that is kept, until nothing is left to check or
  // the engine ends. The background thread calls it; tests may.
  virtual void Scrub() = 0;
  // Before a stop, with a disk that is kept: what is in memory moves there, the coldest blocks
  // first, until `deadline`.
  virtual SaveResult Save(absl::Time deadline) = 0;
  // The end, when nobody is served any more: with a disk that is kept, until all of it is there for
  // the next process. INTERNAL when it will find nothing. Only Describe may be called afterwards,
  // and the destructor, which does the same and tells nobody.
  virtual absl::Status Close() = 0;
  // The bytes of a committed block are wrong: hides it and everything beneath it and keeps its slot
  // out of use.
  virtual void Quarantine(const Tenant& tenant, const Fingerprint& fingerprint, const BlockKey& key,
                          absl::string_view cause) = 0;

  // For the view lane: where `address` (of a slot that OpenRead or OpenWrite pinned) lies; nullopt
  // when it is not in a pool. From now on the extent counts as exported: while it lives it holds
  // blocks of this tenant and spec alone, and its next owner gets other memory. Hold the pin while
  // the answer's fd is used.
  virtual std::optional<ExtentPlace> Export(const uint8_t* address) = 0;
  // What the process of `attachment` needs to map an extent in device memory, whole and writable,
  // that it has a slot of. Until Unshared the extent goes to no other key space. UNAVAILABLE or
  // INTERNAL where the driver refuses. Hold the pin meanwhile.
  virtual absl::StatusOr<HbmHandle> Share(uint32_t extent, AttachmentId attachment) = 0;
  // The attachment is over and no process has anything mapped that was shared with it.
  virtual void Unshared(AttachmentId attachment) = 0;

  // Recomputes all accounting from nothing. OK, or INTERNAL naming the first thing that is wrong.
  virtual absl::Status CheckInvariants() const = 0;
};

}  // namespace reprise::shard
