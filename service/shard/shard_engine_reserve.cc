// Writing, first half: slots for blocks that are not stored yet.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "service/shard/shard_engine_impl.h"

namespace reprise::shard {
namespace {

absl::Status Invalid(absl::string_view reason, absl::string_view sentence) {
  return Refusal(absl::StatusCode::kInvalidArgument, reason, sentence);
}

absl::Status NotAChain(size_t i, const BlockKey& key) {
  return Invalid(
      "KEYS_NOT_A_CHAIN",
      absl::StrCat(
          "keys[", i, "] = ", ToHex(key),
          " is stored here beneath another block than the key before it: send a chain from its "
          "first block on, each key standing for all before it"));
}

}  // namespace

absl::Status ShardEngineImpl::CheckReserve(const KeySpace& space, const ReserveArgs& args) {
  const size_t keys = args.keys.size();
  if (keys == 0) return Invalid("KEYS_EMPTY", "keys is empty: name the blocks to store");
  if (keys > limits::kPromptBlocksMax) {
    return Invalid("KEYS_TOO_MANY",
                   absl::StrCat("keys has ", keys, " keys, more than kPromptBlocksMax = ",
                                limits::kPromptBlocksMax, ": split the prompt"));
  }
  if (!args.token_positions.empty() && args.token_positions.size() != keys) {
    return Invalid("TOKEN_POSITIONS_LENGTH",
                   absl::StrCat("token_positions has ", args.token_positions.size(),
                                " entries for ", keys, " keys: send one per key, or none"));
  }
  const size_t tokens = keys * space.spec.block_tokens;
  if (!args.token_ids.empty() && args.token_ids.size() != tokens) {
    return Invalid(
        "TOKEN_IDS_LENGTH",
        absl::StrCat("token_ids has ", args.token_ids.size(), " entries for ", keys, " keys of ",
                     space.spec.block_tokens, " tokens: send ", tokens, ", or none"));
  }
  if (args.session_id.size() > limits::kNameBytesMax) {
    return Invalid("SESSION_ID_LENGTH",
                   absl::StrCat("session_id has ", args.session_id.size(),
                                " bytes, more than kNameBytesMax = ", limits::kNameBytesMax,
                                ": send a digest of it"));
  }
  return absl::OkStatus();
}

absl::StatusOr<CacheSpec> ShardEngineImpl::Validate(AttachmentId attachment,
                                                    const ReserveArgs& args) {
  REPRISE_ASSIGN_OR_RETURN(const KeySpaceId space_id, attachments_.Resolve(attachment, args.spec));
  absl::MutexLock lock(&mu_);
  const KeySpace& space = SpaceOf(space_id);
  REPRISE_RETURN_IF_ERROR(CheckReserve(space, args));
  return space.spec;
}

absl::Time ShardEngineImpl::ReservationEnd(const Reservation& reservation) {
  return std::min(reservation.progressed + reservation.ttl,
                  reservation.born + limits::kReservationAgeMax);
}

absl::StatusOr<ReserveResult> ShardEngineImpl::Reserve(AttachmentId attachment,
                                                       const ReserveArgs& args) {
  REPRISE_ASSIGN_OR_RETURN(const KeySpaceId space_id, attachments_.Resolve(attachment, args.spec));
  const absl::Time now = clock_.Now();
  const absl::Duration ttl = args.ttl > absl::ZeroDuration() ? args.ttl : limits::kReservationTtl;
  if (!args.spare_room) MakeRoomOnTop(space_id, args.keys);
  Locked lock(this);
  Settle(now);
  REPRISE_ASSIGN_OR_RETURN(Holdings* const holdings, HoldingsOf(attachment));
  KeySpace& space = SpaceOf(space_id);
  if (absl::Status valid = CheckReserve(space, args); !valid.ok()) {
    counters_.Add(Counter::kRefusedInvalid);
    return valid;
  }
  const std::vector<BlockId> present = StoredRun(space, args.keys);
  const auto first = static_cast<uint32_t>(present.size());
  if (first < args.keys.size() && index_.Find(SpaceKey{space.id, args.keys[first]}).has_value()) {
    counters_.Add(Counter::kRefusedInvalid);
    return NotAChain(first, args.keys[first]);
  }
  if (holdings->reservations.size() >= limits::kReservationsPerAttachmentMax) {
    counters_.Add(Counter::kRefusedReservations);
    return Refusal(
        absl::StatusCode::kResourceExhausted, "RESERVATIONS_MAX",
        absl::StrCat("this attachment holds kReservationsPerAttachmentMax = ",
                     limits::kReservationsPerAttachmentMax, " reservations: commit some"));
  }
  for (auto block = present.rbegin(); block != present.rend(); ++block) order_.Refresh(*block);
  Reservation reservation{.attachment = attachment, .space = space.id, .replica = args.replica};
  reservation.blocks.assign(args.keys.size(), kNoBlock);
  reservation.generations.assign(args.keys.size(), 0);
  reservation.born = reservation.progressed = now;
  reservation.ttl = std::min(ttl, limits::kReservationTtlMax);
  const uint32_t granted =
      GrantRun(space, args, first, present.empty() ? kNoBlock : present.back(), reservation);
  ReserveResult result;
  result.outcomes.assign(args.keys.size(), ReserveOutcome::kNoSpace);
  std::fill_n(result.outcomes.begin(), first, ReserveOutcome::kPresent);
  std::fill_n(result.outcomes.begin() + first, granted, ReserveOutcome::kGranted);
  uint64_t pending = 0;
  for (size_t i = first + granted; i < args.keys.size(); ++i) {
    if (!reserved_.contains(SpaceKey{space.id, args.keys[i]})) continue;
    result.outcomes[i] = ReserveOutcome::kPending;
    ++pending;
  }
  counters_.Add(Counter::kReservedBlocks, granted);
  counters_.Add(Counter::kPendingBlocks, pending);
  if (granted > 0) {
    result.reservation = ReservationId(next_reservation_++);
    due_.push(Due{.at = ReservationEnd(reservation), .reservation = result.reservation});
    holdings->reservations.insert(result.reservation);
    reservations_[result.reservation] = std::move(reservation);
  } else if (first < args.keys.size() && result.outcomes[first] == ReserveOutcome::kNoSpace) {
    if (!WithinQuota(space)) {
      counters_.Add(Counter::kRefusedTenantQuota);
      return QuotaRefusal(space);
    }
    counters_.Add(Counter::kRefusedNoSpace);
    if (!pool_->FitsAny(space.shape.block_bytes)) {
      return Refusal(absl::StatusCode::kUnavailable, "SHARD_GPU_LOST",
                     "this shard's GPU is lost and no other memory of it takes such blocks: store "
                     "elsewhere, and restart the shard");
    }
    return Refusal(
        absl::StatusCode::kResourceExhausted, "NO_SPACE",
        absl::StrCat("no slot for keys[", first,
                     args.spare_room ? "]: no room is to spare"
                                     : "]: every block that could make room for it is being read "
                                       "or written, or is pinned",
                     "; try again after ", absl::FormatDuration(limits::kRetryAfter),
                     " or give the shard more --dram"));
  }
  return result;
}

// Grants the run of keys from `first` on, until one is pending or memory is short. The block that
// the run hangs from, and each one granted, keeps what is below it from being evicted.
uint32_t ShardEngineImpl::GrantRun(KeySpace& space, const ReserveArgs& args, uint32_t first,
                                   BlockId parent, Reservation& reservation) {
  const uint32_t block_tokens = space.spec.block_tokens;
  std::shared_ptr<ChainInfo> chain;
  uint32_t granted = 0;
  if (parent != kNoBlock)
    ++blocks_[parent].reserved_children;  // it must outlive the search for room
  const BlockId held = parent;
  for (uint32_t i = first; i < args.keys.size(); ++i) {
    const SpaceKey key{space.id, args.keys[i]};
    if (reserved_.contains(key) || index_.Find(key).has_value()) break;
    const std::optional<SlotRef> slot =
        args.spare_room ? AllocateSpare(space) : AllocateSlot(space);
    if (!slot.has_value()) break;
    if (chain == nullptr) {
      chain = std::make_shared<ChainInfo>(
          ChainInfo{.session_id = args.session_id, .first_block = first});
    }
    const BlockId id = blocks_.Add();
    BlockRecord& block = blocks_[id];
    block.key = args.keys[i];
    block.space = space.id;
    block.slot = *slot;
    block.state = BlockState::kReserved;
    block.depth = i;
    block.token_position =
        args.token_positions.empty() ? i * block_tokens : args.token_positions[i];
    block.parent = parent;
    if (parent != kNoBlock) {
      block.parent_generation = blocks_[parent].generation;
      ++blocks_[parent].reserved_children;
    }
    block.chain = chain;
    reserved_[key] = id;
    SetSlotBlock(*slot, id);
    ++space.reserved;
    SlotTaken(space);
    reservation.blocks[i] = parent = id;
    reservation.generations[i] = block.generation;
    ++reservation.open_blocks;
    ++granted;
  }
  if (held != kNoBlock) --blocks_[held].reserved_children;
  if (chain != nullptr && !args.token_ids.empty()) {
    const auto begin = args.token_ids.begin() + size_t{first} * block_tokens;
    chain->token_ids.assign(begin, begin + size_t{granted} * block_tokens);
  }
  pressure_moved_ = true;
  return granted;
}

// What a block of a reservation can still be written to; the lane's calls come through here.
absl::StatusOr<BlockId> ShardEngineImpl::ReservedBlock(AttachmentId attachment, ReservationId id,
                                                       uint32_t block) {
  Settle(clock_.Now());
  REPRISE_ASSIGN_OR_RETURN(const Reservation* const reservation, FindReservation(attachment, id));
  if (block >= reservation->blocks.size() || reservation->blocks[block] == kNoBlock) {
    return Refusal(absl::StatusCode::kFailedPrecondition, "BLOCK_NOT_GRANTED",
                   absl::StrCat("block = ", block, " has no slot in reservation_id = ", id.value,
                                ": write only blocks whose outcome was GRANTED"));
  }
  const BlockId record = reservation->blocks[block];
  const bool open = blocks_[record].generation == reservation->generations[block] &&
                    blocks_[record].state == BlockState::kReserved && !blocks_[record].sealed;
  if (!open) {
    return Refusal(absl::StatusCode::kFailedPrecondition, "BLOCK_COMMITTED",
                   absl::StrCat("block = ", block, " of reservation_id = ", id.value,
                                " is committed: a block is written once"));
  }
  return record;
}

absl::StatusOr<lanes::PinnedSlot> ShardEngineImpl::OpenWrite(AttachmentId attachment,
                                                             ReservationId reservation,
                                                             uint32_t block) {
  Locked lock(this);
  REPRISE_ASSIGN_OR_RETURN(const BlockId id, ReservedBlock(attachment, reservation, block));
  BlockRecord& record = blocks_[id];
  ++record.pins;
  const uint64_t block_bytes = SpaceOf(record.space).shape.block_bytes;
  return lanes::PinnedSlot{.bytes = {pool_->Address(record.slot), block_bytes},
                           .pin = PinBoard::Pin(pins_, {id}),
                           .memory = MemoryOf(record.slot)};
}

absl::Status ShardEngineImpl::Written(AttachmentId attachment, ReservationId reservation,
                                      uint32_t block, uint64_t bytes) {
  Locked lock(this);
  REPRISE_ASSIGN_OR_RETURN(const BlockId id, ReservedBlock(attachment, reservation, block));
  BlockRecord& record = blocks_[id];
  const uint64_t block_bytes = SpaceOf(record.space).shape.block_bytes;
  if (bytes > block_bytes) {
    return Refusal(absl::StatusCode::kInvalidArgument, "WRITE_BEYOND_BLOCK",
                   absl::StrCat("block = ", block, " was filled up to ", bytes, " bytes and has ",
                                block_bytes, ": write no further than the block"));
  }
  record.written_bytes = std::max(record.written_bytes, bytes);
  return absl::OkStatus();
}

// A granted block that was not committed gives its slot back, at the latest when its last writer is
// done.
void ShardEngineImpl::Unreserve(BlockId id) {
  BlockRecord& block = blocks_[id];
  reserved_.erase(SpaceKey{block.space, block.key});
  if (block.parent != kNoBlock && blocks_.ParentStands(block))
    --blocks_[block.parent].reserved_children;
  block.parent = kNoBlock;
  block.state = BlockState::kHidden;
  KeySpace& space = SpaceOf(block.space);
  --space.reserved;
  ++space.held_back;
  FreeIfIdle(id);
}

void ShardEngineImpl::EndReservation(ReservationId id) {
  const auto it = reservations_.find(id);
  const Reservation reservation = std::move(it->second);
  reservations_.erase(it);
  const auto holdings = holdings_.find(reservation.attachment);
  if (holdings != holdings_.end()) holdings->second.reservations.erase(id);
  for (size_t i = reservation.blocks.size(); i > 0; --i) {
    const BlockId block = reservation.blocks[i - 1];
    if (block == kNoBlock || blocks_[block].generation != reservation.generations[i - 1]) continue;
    if (blocks_[block].state == BlockState::kReserved) Unreserve(block);
  }
  pressure_moved_ = true;
}

}  // namespace reprise::shard
