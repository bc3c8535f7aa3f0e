// What callers want kept (service/shard/claim_table.h): placing claims, moving them with what is
// stored, and counting what they keep, so that all claims together leave room for what nobody
// claims.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "service/shard/shard_engine_impl.h"

namespace reprise::shard {

absl::StatusOr<HintResult> ShardEngineImpl::PlaceClaim(KeySpace& space, const HintArgs& args) {
  const bool pin = args.hint.verb == HintVerb::kPin;
  const std::optional<ClaimId> named = claims_.Find(space.id, args.hint.claim_id);
  if (named.has_value() && args.hint.unless_claimed) {
    return HintResult{.outcome = HintOutcome::kApplied,
                      .blocks = BlocksKept(claims_[*named]),
                      .ttl = claims_[*named].ends - clock_.Now()};
  }
  // The former claim of this name makes room for the new one, or has it back.
  std::optional<Claim> former;
  if (named.has_value()) former = EndClaim(*named);
  const std::vector<BlockId> run = StoredRun(space, args.keys);
  const size_t held = Affordable(space, run, pin);
  const bool all = held == run.size();
  const size_t ahead = all ? args.keys.size() - run.size() : 0;
  absl::Status fits = CheckClaimTable(*space.tally, ahead);
  const bool none = held == 0 && (!all || ClaimableBlocks(space, pin) == 0);
  if (fits.ok() && none) fits = ClaimsFull(space, pin);
  if (!fits.ok()) {
    counters_.Add(Counter::kRefusedClaims);
    if (former.has_value()) AddClaim(*std::move(former));
    return fits;
  }
  const absl::Duration ttl = std::min(args.hint.ttl, limits::kClaimTtlMax);
  Claim claim{.space = space.id,
              .owner = space.tally,
              .name = args.hint.claim_id,
              .rank = pin ? kPinRank : static_cast<uint8_t>(args.hint.priority),
              .ends = clock_.Now() + ttl,
              .rests = held > 0 ? run[held - 1] : kNoBlock};
  claim.ahead.assign(args.keys.rbegin(), args.keys.rbegin() + static_cast<ptrdiff_t>(ahead));
  AddClaim(std::move(claim));
  counters_.Add(Counter::kClaimsPlaced);
  HintResult result{
      .outcome = HintOutcome::kApplied, .blocks = static_cast<uint32_t>(held), .ttl = ttl};
  if (!all) {
    counters_.Add(Counter::kClaimsClipped);
    result.outcome = HintOutcome::kClipped;
    result.why = absl::StrCat(held, " of ", run.size(),
                              " stored blocks are kept: claims may keep no more here");
  } else if (ahead > 0) {
    result.outcome = HintOutcome::kDeferred;
    result.why = absl::StrCat(run.size(), " of ", args.keys.size(),
                              " blocks are stored: the others are kept as they are stored");
  } else if (ttl < args.hint.ttl) {
    result.outcome = HintOutcome::kClipped;
    result.why =
        absl::StrCat("a claim lasts ", absl::FormatDuration(limits::kClaimTtlMax), " at most");
  }
  return result;
}

// Whether one more claim, with so many keys ahead, has a place. A tenant has a share of it, so that
// no other one is without.
absl::Status ShardEngineImpl::CheckClaimTable(const TenantTally& tally, size_t ahead) const {
  const auto share = [](size_t most) {
    return static_cast<size_t>(limits::kClaimsTenantShare * static_cast<double>(most));
  };
  const auto full = [](const char* whose, size_t has, const char* of, const char* limit,
                       size_t most) {
    return Refusal(absl::StatusCode::kResourceExhausted, "CLAIMS_MAX",
                   absl::StrCat(whose, " ", has, " ", of, ", ", limit, " = ", most,
                                ": release some claims, let them end, or claim what is stored"));
  };
  constexpr char kAhead[] = "keys that claims wait for";
  if (claims_.size() >= limits::kClaimsMax)
    return full("this shard has", claims_.size(), "claims", "kClaimsMax", limits::kClaimsMax);
  if (tally.claims >= share(limits::kClaimsMax))
    return full("this tenant has", tally.claims, "claims here", "its share of kClaimsMax",
                share(limits::kClaimsMax));
  if (claims_.keys_ahead() + ahead > limits::kClaimKeysAheadMax)
    return full("this shard has", claims_.keys_ahead(), kAhead, "kClaimKeysAheadMax",
                limits::kClaimKeysAheadMax);
  if (tally.keys_ahead + ahead > share(limits::kClaimKeysAheadMax))
    return full("this tenant has", tally.keys_ahead, kAhead, "its share of kClaimKeysAheadMax",
                share(limits::kClaimKeysAheadMax));
  return absl::OkStatus();
}

absl::Status ShardEngineImpl::ClaimsFull(const KeySpace& space, bool pin) const {
  return Refusal(
      absl::StatusCode::kResourceExhausted, "CLAIMS_FULL",
      absl::StrCat("claims keep ", claimed_.claimed_bytes, " of the ",
                   ClaimsMaxBytes(LiveBytes(), /*pin=*/false), " bytes that they may keep here, ",
                   space.tally->claimed_bytes, " of them this tenant's",
                   pin ? absl::StrCat(", and pins ", claimed_.pinned_bytes, " of ",
                                      ClaimsMaxBytes(LiveBytes(), /*pin=*/true))
                       : "",
                   ": release some, or give the shard more memory or a larger --claims"));
}

HintResult ShardEngineImpl::ReleaseClaim(KeySpace& space, const reprise::Hint& hint) {
  const std::optional<ClaimId> id = claims_.Find(space.id, hint.claim_id);
  if (!id.has_value()) {
    return {.outcome = HintOutcome::kMissing,
            .why = absl::StrCat("no claim \"", hint.claim_id,
                                "\" is held here under this spec: it ended, or was never placed")};
  }
  const uint32_t blocks = BlocksKept(claims_[*id]);
  EndClaim(*id);
  return {.outcome = HintOutcome::kApplied, .blocks = blocks};
}

uint32_t ShardEngineImpl::BlocksKept(const Claim& claim) const {
  return claim.rests == kNoBlock ? 0 : blocks_[claim.rests].depth + 1;
}

// `claim.rests` says where it is to rest.
void ShardEngineImpl::AddClaim(Claim claim) {
  const BlockId rests = std::exchange(claim.rests, kNoBlock);
  RestOn(claims_.Add(std::move(claim)), rests);
}

// What it was.
Claim ShardEngineImpl::EndClaim(ClaimId id) {
  Claim ended = claims_[id];
  RestOn(id, kNoBlock);
  claims_.Erase(id);
  pressure_moved_ = true;
  return ended;
}

void ShardEngineImpl::EndOverdueClaims(absl::Time now) {
  while (const std::optional<ClaimId> id = claims_.Overdue(now)) {
    counters_.Add(Counter::kClaimsEnded);
    EndClaim(*id);
  }
}

// A block was stored: claims that wait for it go on to it.
void ShardEngineImpl::ClaimsFollow(const KeySpace& space, BlockId id) {
  if (claims_.keys_ahead() == 0) return;
  for (const ClaimId waiting : claims_.WaitingFor(SpaceKey{space.id, blocks_[id].key})) {
    const Claim& claim = claims_[waiting];
    // What the claim says the chain is, and what was stored as the chain, may be two things.
    if (blocks_[id].parent != claim.rests) {
      claims_.ForgetAhead(waiting);
      continue;
    }
    if (Affordable(space, {&id, 1}, claim.rank == kPinRank) == 0) {
      counters_.Add(Counter::kClaimsClipped);
      claims_.ForgetAhead(waiting);
      continue;
    }
    claims_.PassNext(waiting);
    RestOn(waiting, id);
  }
}

// A block is about to leave: claims that rest on it go back, and wait for it.
void ShardEngineImpl::ClaimsFallBack(BlockId id) {
  const BlockRecord& block = blocks_[id];
  if (block.claims == 0) return;
  for (const ClaimId resting : claims_.RestingOn(id)) {
    RestOn(resting, block.parent);
    if (claims_.keys_ahead() < limits::kClaimKeysAheadMax) {
      claims_.PutAhead(resting, block.key);
    } else {
      claims_.ForgetAhead(resting);  // what comes after this block is of no use without it
    }
  }
}

// Counted where it goes before it is not where it was, so that what both have in common is not
// walked.
void ShardEngineImpl::RestOn(ClaimId id, BlockId block) {
  const BlockId from = claims_[id].rests;
  if (from == block) return;
  const bool pin = claims_[id].rank == kPinRank;
  claims_.Rest(id, block);
  if (block != kNoBlock) CountClaim(block, pin, /*add=*/true);
  if (from != kNoBlock) CountClaim(from, pin, /*add=*/false);
  RankClaimed(block);
  RankClaimed(from);
}

// An end of its tier may be claimed for what hangs from it on another one.
uint8_t ShardEngineImpl::ClaimRankOf(BlockId id) const {
  const BlockRecord& block = blocks_[id];
  if (block.claim_pins > 0) return kPinRank;
  return block.claims == 0 ? 0 : std::max<uint8_t>(claims_.StrongestOn(id), 1);
}

// A claim on `id` begins or ends: all blocks from there to the chain's first one are kept, or not,
// until one that something else keeps.
void ShardEngineImpl::CountClaim(BlockId id, bool pin, bool add) {
  KeySpace& space = SpaceOf(blocks_[id].space);
  const uint64_t slot_bytes = SlotAllocator::SlotBytes(space.shape.block_bytes);
  const auto count = [&](uint32_t BlockRecord::*counted, uint64_t TenantTally::*bytes)
                         ABSL_NO_THREAD_SAFETY_ANALYSIS {
                           for (BlockId at = id; at != kNoBlock; at = blocks_[at].parent) {
                             uint32_t& claims = blocks_[at].*counted;
                             const bool kept_otherwise = claims > (add ? 0u : 1u);
                             claims += add ? 1 : -1;
                             if (kept_otherwise) return;
                             for (TenantTally* tally : {space.tally.get(), &claimed_}) {
                               tally->*bytes += add ? slot_bytes : -slot_bytes;
                             }
                             if (counted == &BlockRecord::claim_pins)
                               pinned_blocks_[pool_->LevelOf(blocks_[at].slot)] += add ? 1 : -1;
                             if (at != id) RankClaimed(at);
                           }
                         };
  count(&BlockRecord::claims, &TenantTally::claimed_bytes);
  if (pin) count(&BlockRecord::claim_pins, &TenantTally::pinned_bytes);
}

void ShardEngineImpl::RankClaimed(BlockId id) {
  if (id == kNoBlock) return;
  order_.SetClaim(id, ClaimRankOf(id));
  JudgeAsEnd(id);
}

uint64_t ShardEngineImpl::ClaimsMaxBytes(uint64_t of_bytes, bool pin) const {
  const double share = options_.claimed_share * (pin ? limits::kPinnedShare : 1);
  return static_cast<uint64_t>(share * static_cast<double>(of_bytes));
}

// What claims (or pins) of this key space's tenant may keep beside what they keep already.
uint64_t ShardEngineImpl::ClaimableBytes(const KeySpace& space, bool pin) const {
  uint64_t TenantTally::*const bytes =
      pin ? &TenantTally::pinned_bytes : &TenantTally::claimed_bytes;
  const auto left = [&](uint64_t of_bytes, const TenantTally& tally) {
    const uint64_t most = ClaimsMaxBytes(of_bytes, pin);
    return most - std::min(tally.*bytes, most);
  };
  const uint64_t here = left(LiveBytes(), claimed_);
  const uint64_t quota = options_.quotas.Of(space.tenant);
  return quota == TenantQuotas::kNone ? here : std::min(here, left(quota, *space.tally));
}

uint64_t ShardEngineImpl::ClaimableBlocks(const KeySpace& space, bool pin) const {
  const uint64_t bytes = std::min(ClaimableBytes(space, false), ClaimableBytes(space, pin));
  return bytes / SlotAllocator::SlotBytes(space.shape.block_bytes);
}

// Of tiers that are not lost.
uint64_t ShardEngineImpl::LiveBytes() const {
  uint64_t bytes = 0;
  for (Level level = 0; level < pool_->levels(); ++level) {
    if (!pool_->lost(level)) bytes += pool_->capacity_bytes(level);
  }
  return bytes;
}

// How many blocks of a run, from its first one, a claim may keep. What others keep already is free.
size_t ShardEngineImpl::Affordable(const KeySpace& space, std::span<const BlockId> run,
                                   bool pin) const {
  const uint64_t slot_bytes = SlotAllocator::SlotBytes(space.shape.block_bytes);
  const auto most = [&](uint32_t BlockRecord::*counted, bool pins) {
    size_t kept = run.size();
    while (kept > 0 && blocks_[run[kept - 1]].*counted == 0) --kept;
    return std::min<uint64_t>(run.size(), kept + ClaimableBytes(space, pins) / slot_bytes);
  };
  const uint64_t claims = most(&BlockRecord::claims, false);
  return pin ? std::min(claims, most(&BlockRecord::claim_pins, true)) : claims;
}

ClaimsUse ShardEngineImpl::DescribeClaims() const {
  const uint64_t capacity_bytes = LiveBytes();
  return {.claims = claims_.size(),
          .claimed_bytes = claimed_.claimed_bytes,
          .claimed_bytes_max = ClaimsMaxBytes(capacity_bytes, /*pin=*/false),
          .pinned_bytes = claimed_.pinned_bytes,
          .pinned_bytes_max = ClaimsMaxBytes(capacity_bytes, /*pin=*/true)};
}

// Those that rest on a chain's blocks, to be placed on a copy of it. What lies ahead of them is not
// told.
std::vector<ChainClaim> ShardEngineImpl::ClaimsOn(BlockId leaf) const {
  std::vector<ChainClaim> found;
  const absl::Time now = clock_.Now();
  for (BlockId id = leaf; id != kNoBlock; id = blocks_[id].parent) {
    if (blocks_[id].claims == 0) continue;
    for (const ClaimId resting : claims_.RestingOn(id)) {
      const Claim& claim = claims_[resting];
      if (claim.ends <= now) continue;
      const bool pin = claim.rank == kPinRank;
      found.push_back({.hint = {.verb = pin ? HintVerb::kPin : HintVerb::kRetain,
                                .claim_id = claim.name,
                                .priority = pin ? limits::kClaimPriority : claim.rank,
                                .ttl = claim.ends - now},
                       .blocks = blocks_[id].depth + 1});
    }
  }
  return found;
}

}  // namespace reprise::shard
