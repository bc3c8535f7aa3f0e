// ShardEngine's one implementation. Private to service/shard/shard_engine*.cc.
//
// Everything that changes what is stored happens under mu_; bytes are copied and checked outside
// it, held in place by pins. Lookup takes no engine lock at all: the attachment table and the index
// have their own. Lock order: PinBoard, mu_, then attachments, index stripes, pool and watch
// queues, which lock nothing further.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <queue>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"
#include "proto/types/limits.h"
#include "service/eviction/eviction_order.h"
#include "service/index/block_index.h"
#include "service/journal/journal.h"
#include "service/journal/kept_disk.h"
#include "service/journal/kept_records.h"
#include "service/shard/attachment_table.h"
#include "service/shard/block_table.h"
#include "service/shard/claim_table.h"
#include "service/shard/key_space.h"
#include "service/shard/pin_board.h"
#include "service/shard/shard_engine.h"
#include "service/shard/tombstones.h"
#include "service/shard/waiting_blocks.h"
#include "service/shard/watch_queue.h"
#include "service/sizing/reuse_curve.h"
#include "service/telemetry/counters.h"
#include "service/tiers/mover.h"
#include "service/tiers/relief.h"
#include "service/tiers/tiered_pool.h"

namespace reprise::shard {

// Appends one block of `tier` to a run by tier.
void AddToTiers(Tier tier, std::vector<TierRun>& runs);

class ShardEngineImpl final : public ShardEngine, public PinOwner {
 public:
  // `kept`: of the last pool; nullptr: it is not kept over restarts.
  ShardEngineImpl(ShardEngineOptions options, std::shared_ptr<TieredPool> pool,
                  std::unique_ptr<KeptDisk> kept);
  ~ShardEngineImpl() override;
  // Takes over what the last process left, and leaves what there is to the next one from now on.
  // INTERNAL when the disk takes no journal. REQUIRES: a disk is kept; nobody has the engine yet.
  absl::Status StartKeeping() ABSL_LOCKS_EXCLUDED(mu_);

  absl::StatusOr<AttachmentId> Attach(const Tenant& tenant, absl::string_view client_name) override;
  absl::Status KeepAlive(AttachmentId attachment) override;
  void Detach(AttachmentId attachment) override;
  absl::StatusOr<OpenSpecResult> OpenSpec(AttachmentId attachment, const CacheSpec& spec,
                                          const std::optional<Fingerprint>& expected) override;

  absl::StatusOr<LookupResult> Lookup(AttachmentId attachment, SpecHandle spec,
                                      std::span<const BlockKey> keys) override;
  absl::StatusOr<AcquireResult> Acquire(AttachmentId attachment, const AcquireArgs& args) override;
  absl::StatusOr<uint32_t> Release(AttachmentId attachment,
                                   std::span<const LeaseId> leases) override;
  absl::StatusOr<ReserveResult> Reserve(AttachmentId attachment, const ReserveArgs& args) override;
  absl::StatusOr<CacheSpec> Validate(AttachmentId attachment, const ReserveArgs& args) override;
  bool ReserveCopies() const override { return pool_->levels() > 1; }
  absl::StatusOr<CommitResult> Commit(AttachmentId attachment, const CommitArgs& args) override;
  absl::StatusOr<RemoveResult> Remove(AttachmentId attachment, SpecHandle spec,
                                      std::span<const BlockKey> keys) override;
  absl::StatusOr<HintResult> Hint(AttachmentId attachment, const HintArgs& args) override;
  absl::StatusOr<Explanation> Explain(const Tenant& tenant, const Fingerprint& fingerprint,
                                      std::span<const BlockKey> keys,
                                      std::span<const uint32_t> token_ids) override;

  absl::StatusOr<std::unique_ptr<BlockWatch>> Watch() override;
  void OnCommitted(std::function<void(CommittedChain)> listener) override;
  std::vector<ChainEnd> Chains() const override;
  std::optional<CommittedChain> ChainTo(const ChainEnd& end) const override;
  EngineDescription Describe(const std::optional<Tenant>& tenant) const override;
  void Tick() override;
  void EvictToWatermark() override;
  void Scrub() override;
  SaveResult Save(absl::Time deadline) override;
  absl::Status Close() override;
  void Quarantine(const Tenant& tenant, const Fingerprint& fingerprint, const BlockKey& key,
                  absl::string_view cause) override;
  std::optional<ExtentPlace> Export(const uint8_t* address) override {
    return pool_->Export(address);
  }
  absl::StatusOr<HbmHandle> Share(uint32_t extent, AttachmentId attachment) override {
    return pool_->Share(extent, attachment);
  }
  void Unshared(AttachmentId attachment) override { pool_->Unshared(attachment); }
  absl::Status CopyToHost(std::span<const uint8_t> from, std::span<uint8_t> to) override {
    return pool_->CopyToHost(from, to);
  }
  absl::Status CopyToDevice(std::span<const uint8_t> from, std::span<uint8_t> to) override {
    return pool_->CopyFromHost(from, to);
  }
  absl::Status CheckInvariants() const override;

  absl::StatusOr<std::vector<lanes::PinnedBytes>> OpenRead(AttachmentId attachment, LeaseId lease,
                                                           uint32_t first,
                                                           uint32_t blocks) override;
  absl::StatusOr<lanes::PinnedSlot> OpenWrite(AttachmentId attachment, ReservationId reservation,
                                              uint32_t block) override;
  absl::Status Written(AttachmentId attachment, ReservationId reservation, uint32_t block,
                       uint64_t bytes) override;

  // Ends a watch; called by the BlockWatch that Watch returned.
  void EndWatch(const std::shared_ptr<WatchQueue>& queue);

 private:
  struct Lease {
    AttachmentId attachment;
    uint32_t first_block = 0;
    std::vector<BlockId> blocks;  // of the key at first_block, and so on
    absl::Time born;
    absl::Duration ttl;
  };
  struct Reservation {
    AttachmentId attachment;
    KeySpaceId space;
    std::vector<BlockId> blocks;  // one per key; kNoBlock: not granted
    std::vector<uint32_t> generations;
    uint32_t open_blocks = 0;  // granted and not committed yet
    absl::Time born;
    absl::Duration ttl;
    absl::Time progressed;  // Reserve, or the last Commit of some of its blocks
    bool replica = false;
  };
  struct Holdings {
    absl::flat_hash_set<LeaseId> leases;
    absl::flat_hash_set<ReservationId> reservations;
  };
  // A time at which a lease or reservation may be over. It may have been extended since.
  struct Due {
    absl::Time at;
    LeaseId lease;
    ReservationId reservation;
    friend bool operator>(const Due& a, const Due& b) { return a.at > b.at; }
  };
  // One Commit on its way through its three steps.
  struct CommitWork {
    std::vector<std::pair<uint32_t, Checksum128>> named;  // by index among the keys of Reserve
    std::vector<BlockId> blocks;                          // of those not committed yet
    std::vector<uint32_t> indexes;                        // of the same
    std::vector<Checksum128> expected;
    std::vector<SlotRef> slots;
    BlockShape shape;
    CommitResult result;
  };

  // Holds mu_; when it goes, watchers are told of what happened and the evictor is woken if there
  // is need.
  class ABSL_SCOPED_LOCKABLE Locked {
   public:
    explicit Locked(ShardEngineImpl* engine) ABSL_EXCLUSIVE_LOCK_FUNCTION(engine->mu_);
    ~Locked() ABSL_UNLOCK_FUNCTION();

   private:
    ShardEngineImpl* const engine_;
  };

  // ---- shard_engine.cc
  absl::StatusOr<KeySpaceId> FindOrAddSpace(const Tenant& tenant, const CacheSpec& spec,
                                            const BlockLayout& layout,
                                            const Fingerprint& fingerprint)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  KeySpace* FindSpace(const Tenant& tenant, const Fingerprint& fingerprint) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckExpected(const Tenant& tenant, const CacheSpec& spec, const Fingerprint& actual,
                             const Fingerprint& expected) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool DropUnusedSpace(const Tenant& tenant) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<Holdings*> HoldingsOf(AttachmentId attachment) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Before anything is answered: ends what is overdue, and takes lost tiers out of service.
  void Settle(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // ---- shard_engine_leases.cc
  std::vector<BlockId> StoredRun(const KeySpace& space, std::span<const BlockKey> keys) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CountRun(const KeySpace& space, size_t asked, size_t stored);
  static absl::Time ReservationEnd(const Reservation& reservation);
  absl::Time LeaseEnd(const Lease& lease) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EndLease(LeaseId id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Unpinned(const std::vector<BlockId>& blocks) override;

  // ---- shard_engine_reserve.cc
  absl::Status CheckReserve(const KeySpace& space, const ReserveArgs& args);
  uint32_t GrantRun(KeySpace& space, const ReserveArgs& args, uint32_t first, BlockId parent,
                    Reservation& reservation) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<BlockId> ReservedBlock(AttachmentId attachment, ReservationId reservation,
                                        uint32_t block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Unreserve(BlockId id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EndReservation(ReservationId id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // ---- shard_engine_commit.cc
  absl::StatusOr<Reservation*> FindReservation(AttachmentId attachment, ReservationId id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status NameBlocks(const Reservation& reservation, const CommitArgs& args, CommitWork& work)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckCommittable(const Reservation& reservation, uint32_t index,
                                const absl::flat_hash_set<BlockId>& also)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status BeginCommit(AttachmentId attachment, const CommitArgs& args, CommitWork& work)
      ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<std::vector<size_t>> FindCorrupt(const CommitWork& work) const;
  absl::Status FinishCommit(AttachmentId attachment, const CommitArgs& args, CommitWork& work,
                            std::optional<CommittedChain>& chain) ABSL_LOCKS_EXCLUDED(mu_);
  void AbandonCommit(const CommitWork& work, const std::vector<size_t>& corrupt)
      ABSL_LOCKS_EXCLUDED(mu_);
  void MakeVisible(KeySpace& space, BlockId id, const Checksum128& checksum, bool replica)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Enter(KeySpace& space, BlockId id, bool copy) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void TouchChain(BlockId leaf) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // ---- shard_engine_chains.cc
  CommittedChain DescribeChain(const KeySpace& space, BlockId leaf, size_t new_blocks) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // ---- shard_engine_claims.cc
  absl::StatusOr<HintResult> PlaceClaim(KeySpace& space, const HintArgs& args)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckClaimTable(const TenantTally& tally, size_t ahead) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status ClaimsFull(const KeySpace& space, bool pin) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  HintResult ReleaseClaim(KeySpace& space, const reprise::Hint& hint)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint32_t BlocksKept(const Claim& claim) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void AddClaim(Claim claim) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Claim EndClaim(ClaimId id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EndOverdueClaims(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ClaimsFollow(const KeySpace& space, BlockId id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ClaimsFallBack(BlockId id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void RestOn(ClaimId id, BlockId block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CountClaim(BlockId id, bool pin, bool add) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint8_t ClaimRankOf(BlockId id) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void RankClaimed(BlockId id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint64_t ClaimableBytes(const KeySpace& space, bool pin) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint64_t ClaimableBlocks(const KeySpace& space, bool pin) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint64_t LiveBytes() const;
  size_t Affordable(const KeySpace& space, std::span<const BlockId> run, bool pin) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint64_t ClaimsMaxBytes(uint64_t of_bytes, bool pin) const;
  ClaimsUse DescribeClaims() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::vector<ChainClaim> ClaimsOn(BlockId leaf) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // ---- shard_engine_evict.cc
  bool Evictable(BlockId id) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool EvictOne(KeySpace& space, Level level, DropCause cause, KeySpaceId for_space)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::optional<SlotRef> AllocateSlot(KeySpace& space) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::optional<SlotRef> AllocateSpare(KeySpace& space) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::optional<SlotRef> AllocateAt(KeySpace& space, Level level, bool may_evict)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::vector<KeySpace*> OthersByMemory(const KeySpace& space, Level level) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool MayGrow(const KeySpace& space, Level level, const std::vector<KeySpace*>& others) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool EvictBatch(Level level) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool MayYieldEnds(Level level) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EvictLoop();

  // ---- shard_engine_ends.cc
  static uint64_t OrderKeyOf(const SpaceKey& key);
  static bool GoesBefore(const std::optional<EvictionRank>& a,
                         const std::optional<EvictionRank>& b);
  void Arrived(BlockId id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Departs(BlockId id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void JudgeAsEnd(BlockId id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CountNear(BlockId id, bool near) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool IsNear(BlockId id) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool IsEnd(BlockId id) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // ---- shard_engine_sizing.cc
  static uint64_t CapacityBytes(const TieredPool& pool);
  static uint64_t SizingHorizonBytes(const TieredPool& pool);
  void NoteAsked(const KeySpace& space, std::span<const uint64_t> order_keys)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void NoteStored(const KeySpace& space, std::span<const BlockId> blocks)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  SizingEstimate EstimateSizing() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // ---- shard_engine_quota.cc
  void SlotTaken(KeySpace& space) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SlotGivenBack(KeySpace& space) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint64_t TenantBytes(const Tenant& tenant) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool WithinQuota(const KeySpace& space) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool MakeRoomWithinQuota(const KeySpace& space) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status QuotaRefusal(const KeySpace& space) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::vector<TenantUse> TenantUses() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // ---- shard_engine_reclaim.cc
  // An extent to be taken from one key space for another.
  struct Reclaim {
    Level level = 0;
    KeySpaceId to;
    bool may_evict = false;
  };
  bool ReclaimFromAny(const std::vector<KeySpace*>& others, const Reclaim& reclaim)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool ReclaimExtent(KeySpace& from, const Reclaim& reclaim) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool EmptyExtent(KeySpace& from, uint32_t extent, const Reclaim& reclaim)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool EvictForExtent(KeySpace& from, const Reclaim& reclaim) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::vector<uint32_t> MovableExtents(const KeySpace& space, const Reclaim& reclaim) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool Movable(BlockId id) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // ---- shard_engine_tiers.cc
  // What is judged together: a key space's blocks on one level.
  struct Group {
    KeySpace* space = nullptr;
    Level level = 0;
  };
  uint32_t GroupOf(KeySpaceId space, Level level) const {
    return space.value * pool_->levels() + level;
  }
  std::optional<Group> ColdestGroup(std::optional<Level> level,
                                    const absl::flat_hash_set<uint32_t>& exhausted,
                                    const Tenant* only = nullptr) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::vector<TierRun> TiersOf(std::span<const BlockId> run) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  lanes::MemoryKind MemoryOf(SlotRef slot) const;
  bool UnderPressure() const;
  // Which blocks to move down, and how many at most.
  struct DemotionOrder {
    Level level = 0;                 // from here to the next
    std::optional<KeySpaceId> only;  // of this key space; nullopt: the coldest of all
    size_t blocks_max = 0;
    bool to_watermark = false;  // no more than it takes to get there
  };
  struct Demotion {
    BlockId id = kNoBlock;
    TierMove move;
    MoveOutcome outcome = MoveOutcome::kRefused;
  };
  size_t Demote(const DemotionOrder& order) ABSL_LOCKS_EXCLUDED(mu_);
  void MakeRoomBelow(const DemotionOrder& order) ABSL_LOCKS_EXCLUDED(mu_);
  size_t BeginDemotions(const DemotionOrder& order, std::vector<Demotion>& begun)
      ABSL_LOCKS_EXCLUDED(mu_);
  bool BeginDemotion(const Group& group, BlockId id, std::vector<Demotion>& begun)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  size_t FinishDemotions(const std::vector<Demotion>& demotions) ABSL_LOCKS_EXCLUDED(mu_);
  bool FinishDemotion(const Demotion& demotion) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void PublishMoves(std::span<const BlockId> coldest_first) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void MakeRoomOnTop(KeySpaceId space, std::span<const BlockKey> keys) ABSL_LOCKS_EXCLUDED(mu_);

  // ---- shard_engine_hints.cc
  HintResult EvictRun(KeySpace& space, const HintArgs& args, absl::string_view by)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  const char* WhyItStays(BlockId id) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Blocks [first, end) of a run.
  struct RunPart {
    size_t first = 0;
    size_t end = 0;
  };
  absl::StatusOr<HintResult> DemoteRun(AttachmentId attachment, KeySpaceId space_id,
                                       const HintArgs& args) ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status MakeRoomForRun(AttachmentId attachment, KeySpaceId space_id,
                              std::span<const BlockKey> keys, const RunPart& part)
      ABSL_LOCKS_EXCLUDED(mu_);
  std::string BeginRunDemotions(const std::vector<BlockId>& run, RunPart& part,
                                std::vector<Demotion>& begun) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // ---- shard_engine_remove.cc
  struct Remover {
    AttachmentId attachment;
    KeySpaceId space;
    std::string client_name;
  };
  absl::Status RemoveBelow(const Remover& by, std::span<const BlockKey> keys, RemoveResult& result,
                           uint64_t& note) ABSL_LOCKS_EXCLUDED(mu_);
  void Drop(KeySpace& space, BlockId id, Tombstone tombstone, BlockState next)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void QuarantineBlock(KeySpace& space, BlockId top, absl::string_view cause)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void FreeIfIdle(BlockId id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::vector<BlockId> AllBelow(const KeySpace& space, std::span<const BlockKey> keys) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SetSlotBlock(SlotRef slot, BlockId id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // ---- shard_engine_lost.cc
  void WithdrawLostTiers() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EndReservationsOn(Level level) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void DropAllOn(Level level) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // ---- shard_engine_restore.cc
  // By the number that the last process gave it.
  struct RestoredSpace {
    const KeptSpace* kept = nullptr;
    KeySpaceId id;  // none: not added yet
    bool useless = false;
  };
  using RestoredSpaces = absl::flat_hash_map<uint32_t, RestoredSpace>;
  void Restore(KeptDisk::Found found) ABSL_LOCKS_EXCLUDED(mu_);
  KeySpace* SpaceFor(uint32_t number, RestoredSpaces& spaces) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  KeySpaceId RestoreSpace(const KeptSpace& kept) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  BlockId RestoreBlock(KeySpace& space, KeptBlock& kept) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool EnterRestored(KeySpace& space, const KeptBlock& kept, BlockId id, uint64_t last_use)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void RestoreClaim(KeySpace& space, const KeptClaim& kept) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // ---- shard_engine_waiting.cc
  void EnterIfReady(KeySpace& space, BlockId id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Adopt(KeySpace& space, BlockId stored) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool EnterWaiting(KeySpace& space, BlockId id, BlockId parent) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EnterFound(KeySpace& space, BlockId id, BlockId parent, uint64_t last_use)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint64_t LastUseOfWaiting(BlockId id) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void PublishAdopted(const KeySpace& space) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void LetGo(BlockId id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool LetGoColdest(KeySpaceId space) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool LetGoAny(const Tenant* only) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void LetGoIn(uint32_t extent) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint32_t LetGoBelow(const KeySpace& space, std::vector<BlockKey> keys)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::optional<SlotRef> AllocateOverWaiting(KeySpace& space, Level level)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // ---- shard_engine_keep.cc
  void NoteKept(SlotRef slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status AwaitJournal(uint64_t note) ABSL_LOCKS_EXCLUDED(mu_);
  void KeepLoop() ABSL_LOCKS_EXCLUDED(mu_);
  void StopKeeping(const absl::Status& why) ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status EndJournal() ABSL_LOCKS_EXCLUDED(mu_);

  // ---- shard_engine_journal.cc
  // A block as it was when it was listed.
  struct BlockUse {
    BlockId id = kNoBlock;
    uint32_t generation = 0;
  };
  struct Unsaid {
    std::vector<SlotRef> slots;
    uint64_t last_note = 0;
  };
  Unsaid TakeUnsaid() ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status SaySlots(const std::vector<SlotRef>& slots, JournalWriter& journal)
      ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status SayUnsaid(bool sync) ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status SayAll(JournalWriter& journal, bool ending) ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status RewriteJournal(bool ending) ABSL_LOCKS_EXCLUDED(mu_);
  bool JournalIsOfThePast() const;
  void Say(SlotRef slot, KeptBatch& batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SayBlock(BlockId id, KeptBatch& batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SaySpace(const KeySpace& space, KeptBatch& batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SayClaims(KeptBatch& batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  BlockId KeptAt(SlotRef slot) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool IsKept(BlockId id) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint64_t LastUseOf(BlockId id) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // ---- shard_engine_scrub.cc
  // One block on its way through: pinned.
  struct ScrubStep {
    BlockId id = kNoBlock;
    SlotRef slot;
    BlockShape shape;
    Checksum128 checksum;
  };
  std::optional<ScrubStep> BeginScrub(absl::Time due) ABSL_LOCKS_EXCLUDED(mu_);
  void FinishScrub(const ScrubStep& step, bool right) ABSL_LOCKS_EXCLUDED(mu_);

  // ---- shard_engine_save.cc
  bool DemoteAll(Level level, absl::Time deadline) ABSL_LOCKS_EXCLUDED(mu_);
  uint64_t BlocksInMemory() const ABSL_LOCKS_EXCLUDED(mu_);

  // ---- shard_engine_explain.cc
  struct Question {
    Tenant tenant;
    Fingerprint fingerprint;
    std::span<const BlockKey> keys;
    std::span<const uint32_t> token_ids;
    const KeySpace* space = nullptr;  // nullptr: never opened here
    std::vector<BlockId> run;
  };
  void ExplainMiss(const Question& question, Explanation& answer) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool ExplainPending(const Question& question, Explanation& answer) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool ExplainTombstone(const Question& question, Explanation& answer) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool ExplainOtherSpec(const Question& question, Explanation& answer) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  const KeySpace* NearestSpaceWith(const Question& question, const BlockKey& key) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool ExplainSibling(const Question& question, Explanation& answer) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // ---- shard_engine_watch.cc
  std::vector<BlockEvent> Snapshot() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  struct Publication {
    BlockEvent::Kind kind = BlockEvent::Kind::kStored;
    const KeySpace* space = nullptr;
    Tier tier = Tier::kDram;      // kStored only
    std::string session_id = {};  // kStored only
  };
  void Publish(const Publication& what, std::span<const BlockKey> keys)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void PublishStored(const KeySpace& space, std::span<const BlockId> blocks)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void PublishRemoved() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // ---- shard_engine_invariants.cc
  struct Recount;
  absl::Status CheckBlocks(Recount& recount) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckBlock(BlockId id, Recount& recount) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckMoving(Recount& recount) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckCommitted(BlockId id) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckForest() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckHolders() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckClaims() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckSpaces(const Recount& recount) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  KeySpace& SpaceOf(KeySpaceId id) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return *spaces_.at(id);
  }

  const ShardEngineOptions options_;
  const Clock& clock_;
  const std::shared_ptr<TieredPool> pool_;
  const std::shared_ptr<PinBoard> pins_;
  AttachmentTable attachments_;
  BlockIndex index_;
  mutable Counters counters_;

  mutable absl::Mutex mu_;
  absl::flat_hash_map<KeySpaceId, std::unique_ptr<KeySpace>> spaces_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<Tenant, absl::flat_hash_map<Fingerprint, KeySpaceId>> space_ids_
      ABSL_GUARDED_BY(mu_);
  uint32_t next_space_ ABSL_GUARDED_BY(mu_) = 1;
  BlockTable blocks_ ABSL_GUARDED_BY(mu_);
  EvictionOrder order_ ABSL_GUARDED_BY(mu_);
  ReuseCurve sizing_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<SpaceKey, BlockId> reserved_ ABSL_GUARDED_BY(mu_);
  std::vector<std::vector<BlockId>> slot_blocks_ ABSL_GUARDED_BY(mu_);  // [extent][slot]
  absl::flat_hash_map<BlockId, SlotRef> moving_ ABSL_GUARDED_BY(mu_);  // where to; pinned meanwhile
  ClaimTable claims_ ABSL_GUARDED_BY(mu_);
  TenantTally claimed_ ABSL_GUARDED_BY(mu_);  // over all tenants, in bytes that claims keep
  std::vector<uint64_t> pinned_blocks_ ABSL_GUARDED_BY(mu_);  // by claims, on each level
  Tombstones tombstones_ ABSL_GUARDED_BY(mu_){limits::kTombstonesMax};
  std::deque<BlockId> quarantined_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_set<Level> withdrawn_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<AttachmentId, Holdings> holdings_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<LeaseId, Lease> leases_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<ReservationId, Reservation> reservations_ ABSL_GUARDED_BY(mu_);
  std::priority_queue<Due, std::vector<Due>, std::greater<>> due_ ABSL_GUARDED_BY(mu_);
  uint64_t next_lease_ ABSL_GUARDED_BY(mu_) = 1;
  uint64_t next_reservation_ ABSL_GUARDED_BY(mu_) = 1;

  std::vector<std::shared_ptr<WatchQueue>> watchers_ ABSL_GUARDED_BY(mu_);
  std::vector<std::shared_ptr<WatchQueue>> to_notify_ ABSL_GUARDED_BY(mu_);
  KeySpaceId removed_space_ ABSL_GUARDED_BY(mu_);            // of removed_keys_
  std::vector<BlockKey> removed_keys_ ABSL_GUARDED_BY(mu_);  // not published yet
  std::shared_ptr<const std::function<void(CommittedChain)>> listener_ ABSL_GUARDED_BY(mu_);

  const std::unique_ptr<KeptDisk> kept_;
  KeptDiskUse kept_use_ ABSL_GUARDED_BY(mu_);
  uint64_t found_blocks_ ABSL_GUARDED_BY(mu_) = 0;  // on the kept disk, whether of use or not
  WaitingBlocks waiting_ ABSL_GUARDED_BY(mu_);
  std::vector<BlockId> adopted_ ABSL_GUARDED_BY(mu_);  // not published yet
  std::deque<BlockUse> to_scrub_ ABSL_GUARDED_BY(mu_);
  bool following_ ABSL_GUARDED_BY(mu_) = false;  // the journal says what changes on the kept disk
  absl::flat_hash_set<SlotRef> unsaid_ ABSL_GUARDED_BY(mu_);  // of the kept disk: changed since
  absl::flat_hash_set<KeySpaceId> said_spaces_ ABSL_GUARDED_BY(mu_);  // by the journal
  uint64_t notes_ ABSL_GUARDED_BY(mu_) = 0;                           // of unsaid_, ever
  uint64_t said_notes_ ABSL_GUARDED_BY(mu_) = 0;  // the last one that is known to be on the disk
  int hurried_ ABSL_GUARDED_BY(mu_) = 0;          // callers that wait for it
  absl::CondVar keep_cv_;
  absl::CondVar said_cv_;
  std::unique_ptr<JournalWriter> journal_;  // of StartKeeping, then of keeper_, then of the end
  uint64_t rewritten_bytes_ = 0;            // of the journal when it was written anew; as journal_
  std::thread keeper_;
  std::thread scrubber_;

  absl::CondVar evict_cv_;
  bool evict_wanted_ ABSL_GUARDED_BY(mu_) = false;
  bool pressure_moved_ ABSL_GUARDED_BY(mu_) =
      false;  // in this hold of mu_: worth waking the evictor
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread evictor_;
};

}  // namespace reprise::shard
