// Writing, second half: bytes that match their checksums become visible, all of those named or
// none.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "service/shard/shard_engine_impl.h"

namespace reprise::shard {

absl::StatusOr<ShardEngineImpl::Reservation*> ShardEngineImpl::FindReservation(
    AttachmentId attachment, ReservationId id) {
  REPRISE_RETURN_IF_ERROR(HoldingsOf(attachment).status());
  const auto it = reservations_.find(id);
  if (it != reservations_.end() && it->second.attachment == attachment) return &it->second;
  return Refusal(absl::StatusCode::kNotFound, "RESERVATION_UNKNOWN",
                 absl::StrCat("reservation_id = ", id.value,
                              " is over (committed, expired) or was never given: reserve again"));
}

absl::StatusOr<CommitResult> ShardEngineImpl::Commit(AttachmentId attachment,
                                                     const CommitArgs& args) {
  CommitWork work;
  REPRISE_RETURN_IF_ERROR(BeginCommit(attachment, args, work));
  const absl::StatusOr<std::vector<size_t>> corrupt = FindCorrupt(work);
  if (!corrupt.ok() || !corrupt->empty()) {
    AbandonCommit(work, corrupt.ok() ? *corrupt : std::vector<size_t>());
    if (!corrupt.ok()) return corrupt.status();
    return Refusal(
        absl::StatusCode::kDataLoss, "CHECKSUM_MISMATCH",
        absl::StrCat(corrupt->size(), " of ", work.blocks.size(),
                     " blocks do not match their checksums, the first is keys[",
                     work.indexes[corrupt->front()], "]: nothing was committed; write them again"));
  }
  std::optional<CommittedChain> chain;
  REPRISE_RETURN_IF_ERROR(FinishCommit(attachment, args, work, chain));
  if (chain.has_value()) {
    std::shared_ptr<const std::function<void(CommittedChain)>> listener;
    {
      absl::MutexLock lock(&mu_);
      listener = listener_;
    }
    if (listener != nullptr && *listener) (*listener)(*std::move(chain));
  }
  return work.result;
}

// Which blocks are meant, in chain order, each with its checksum.
absl::Status ShardEngineImpl::NameBlocks(const Reservation& reservation, const CommitArgs& args,
                                         CommitWork& work) {
  std::vector<uint32_t> blocks(args.blocks.begin(), args.blocks.end());
  if (blocks.empty()) {
    for (uint32_t i = 0; i < reservation.blocks.size(); ++i) {
      if (reservation.blocks[i] != kNoBlock) blocks.push_back(i);
    }
  }
  if (blocks.size() != args.checksums.size()) {
    return Refusal(absl::StatusCode::kInvalidArgument, "CHECKSUMS_COUNT",
                   absl::StrCat("checksums has ", args.checksums.size(), " entries for ",
                                blocks.size(), " blocks: send one per block"));
  }
  for (size_t i = 0; i < blocks.size(); ++i) work.named.emplace_back(blocks[i], args.checksums[i]);
  std::sort(work.named.begin(), work.named.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  for (size_t i = 1; i < work.named.size(); ++i) {
    if (work.named[i].first != work.named[i - 1].first) continue;
    return Refusal(
        absl::StatusCode::kInvalidArgument, "BLOCKS_DUPLICATE",
        absl::StrCat("blocks names ", work.named[i].first, " twice: name each block once"));
  }
  for (const auto& [index, checksum] : work.named) {
    if (index < reservation.blocks.size() && reservation.blocks[index] != kNoBlock) continue;
    return Refusal(
        absl::StatusCode::kFailedPrecondition, "BLOCK_NOT_GRANTED",
        absl::StrCat("blocks names ", index, ", which was not granted by reservation_id = ",
                     args.reservation.value, ": commit only blocks whose outcome was GRANTED"));
  }
  return absl::OkStatus();
}

// Whether block `index` may be committed now, its parent being stored or among `also`.
absl::Status ShardEngineImpl::CheckCommittable(const Reservation& reservation, uint32_t index,
                                               const absl::flat_hash_set<BlockId>& also) {
  const BlockRecord& block = blocks_[reservation.blocks[index]];
  const auto refuse = [&](absl::string_view reason, absl::string_view what) {
    return Refusal(absl::StatusCode::kFailedPrecondition, reason,
                   absl::StrCat("block ", index, " ", what));
  };
  if (block.sealed)
    return refuse("COMMIT_IN_PROGRESS", "is being committed by another call: wait for its answer");
  const uint64_t block_bytes = SpaceOf(block.space).shape.block_bytes;
  if (block.written_bytes < block_bytes) {
    return refuse("BYTES_MISSING",
                  absl::StrCat("has ", block.written_bytes, " of its ", block_bytes,
                               " bytes: write all of it before Commit"));
  }
  if (block.parent == kNoBlock || also.contains(block.parent)) return absl::OkStatus();
  if (blocks_.ParentStands(block) && blocks_[block.parent].state == BlockState::kCommitted) {
    return absl::OkStatus();
  }
  return refuse(
      "PARENT_MISSING",
      "hangs from a block that is not stored (not committed, or removed since): commit the "
      "blocks before it too, or reserve again");
}

absl::Status ShardEngineImpl::BeginCommit(AttachmentId attachment, const CommitArgs& args,
                                          CommitWork& work) {
  Locked lock(this);
  Settle(clock_.Now());
  REPRISE_ASSIGN_OR_RETURN(Reservation* const reservation,
                           FindReservation(attachment, args.reservation));
  if (absl::Status named = NameBlocks(*reservation, args, work); !named.ok()) {
    counters_.Add(Counter::kRefusedInvalid);
    return named;
  }
  absl::flat_hash_set<BlockId> also;
  for (const auto& [index, checksum] : work.named) {
    const BlockId id = reservation->blocks[index];
    const bool open = blocks_[id].generation == reservation->generations[index] &&
                      blocks_[id].state == BlockState::kReserved;
    if (!open) {  // committed before by this very reservation
      ++work.result.duplicate;
      continue;
    }
    if (absl::Status committable = CheckCommittable(*reservation, index, also); !committable.ok()) {
      counters_.Add(Counter::kRefusedNotWritten);
      return committable;
    }
    also.insert(id);
    work.blocks.push_back(id);
    work.indexes.push_back(index);
    work.expected.push_back(checksum);
    work.slots.push_back(blocks_[id].slot);
  }
  work.shape = SpaceOf(reservation->space).shape;
  for (BlockId id : work.blocks) {
    blocks_[id].sealed = true;
    ++blocks_[id].pins;  // in place while the checksums are made
  }
  return absl::OkStatus();
}

// Indexes in work.blocks.
absl::StatusOr<std::vector<size_t>> ShardEngineImpl::FindCorrupt(const CommitWork& work) const {
  REPRISE_ASSIGN_OR_RETURN(const std::vector<Checksum128> actual,
                           pool_->Checksums(work.slots, work.shape));
  std::vector<size_t> corrupt;
  for (size_t i = 0; i < actual.size(); ++i) {
    if (actual[i] != work.expected[i]) corrupt.push_back(i);
  }
  return corrupt;
}

// The reservation stays, so that what was wrong can be written again.
void ShardEngineImpl::AbandonCommit(const CommitWork& work, const std::vector<size_t>& corrupt) {
  Locked lock(this);
  counters_.Add(Counter::kCorruptBlocks, corrupt.size());
  for (size_t i : corrupt) blocks_[work.blocks[i]].written_bytes = 0;
  for (BlockId id : work.blocks) {
    blocks_[id].sealed = false;
    --blocks_[id].pins;
    FreeIfIdle(id);
  }
}

absl::Status ShardEngineImpl::FinishCommit(AttachmentId attachment, const CommitArgs& args,
                                           CommitWork& work, std::optional<CommittedChain>& chain) {
  Locked lock(this);
  // Everything may have changed meanwhile, except that the blocks are pinned.
  const absl::StatusOr<Reservation*> reservation = FindReservation(attachment, args.reservation);
  absl::Status standing = reservation.status();
  const absl::flat_hash_set<BlockId> also(work.blocks.begin(), work.blocks.end());
  for (BlockId id : work.blocks) {
    --blocks_[id].pins;
    blocks_[id].sealed = false;
  }
  for (const auto& [index, checksum] : work.named) {
    if (!standing.ok()) break;
    if (also.contains((*reservation)->blocks[index]))
      standing = CheckCommittable(**reservation, index, also);
  }
  if (!standing.ok()) {
    counters_.Add(Counter::kRefusedNotWritten);
    for (BlockId id : work.blocks) FreeIfIdle(id);
    return standing;
  }
  KeySpace& space = SpaceOf((*reservation)->space);
  for (size_t i = 0; i < work.blocks.size(); ++i) {
    MakeVisible(space, work.blocks[i], work.expected[i], (*reservation)->replica);
  }
  const size_t committed = work.blocks.size();
  work.result.committed = static_cast<uint32_t>(committed);
  counters_.Add(Counter::kStoredBlocks, committed);
  counters_.Add(Counter::kStoredBytes, committed * space.shape.block_bytes);
  counters_.Add(Counter::kDuplicateBlocks, work.result.duplicate);
  if (!work.blocks.empty()) {
    // A prompt may take longer than one ttl to send: what arrives says that the rest is coming.
    (*reservation)->progressed = clock_.Now();
    const BlockId leaf = work.blocks.back();
    TouchChain(leaf);
    NoteStored(space, work.blocks);
    PublishStored(space, work.blocks);
    PublishAdopted(space);
    if (!(*reservation)->replica && listener_ != nullptr)
      chain = DescribeChain(space, leaf, committed);
  }
  (*reservation)->open_blocks -= work.result.committed;
  if ((*reservation)->open_blocks == 0) EndReservation(args.reservation);
  return absl::OkStatus();
}

void ShardEngineImpl::MakeVisible(KeySpace& space, BlockId id, const Checksum128& checksum,
                                  bool replica) {
  BlockRecord& block = blocks_[id];
  reserved_.erase(SpaceKey{space.id, block.key});
  if (block.parent != kNoBlock) --blocks_[block.parent].reserved_children;
  block.checksum = checksum;
  --space.reserved;
  if (const std::optional<BlockId> old = waiting_.Find(SpaceKey{space.id, block.key})) LetGo(*old);
  Enter(space, id, replica);
  Adopt(space, id);
}

// What is stored from now on, below its parent or as a root. `copy`: nobody used it here yet.
void ShardEngineImpl::Enter(KeySpace& space, BlockId id, bool copy) {
  BlockRecord& block = blocks_[id];
  const SpaceKey key{space.id, block.key};
  block.state = BlockState::kCommitted;
  blocks_.Link(id, space.roots);
  ++space.blocks;
  order_.Track(id, GroupOf(space.id, pool_->LevelOf(block.slot)), OrderKeyOf(key), clock_.Now(),
               copy);
  Arrived(id);
  NoteKept(block.slot);
  tombstones_.Erase(key);
  REPRISE_CHECK(index_.Insert(key, IndexEntry{.block = id, .tier = pool_->TierOf(block.slot)}));
  ClaimsFollow(space, id);
}

void ShardEngineImpl::TouchChain(BlockId leaf) {
  for (BlockId id = leaf; id != kNoBlock; id = blocks_[id].parent) order_.Refresh(id);
}

}  // namespace reprise::shard
