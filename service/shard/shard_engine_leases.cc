// Reading: the longest stored prefix, the right to read it, and the bytes.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "service/shard/shard_engine_impl.h"

namespace reprise::shard {
namespace {

absl::Status LeaseOver(LeaseId lease) {
  return Refusal(
      absl::StatusCode::kNotFound, "LEASE_UNKNOWN",
      absl::StrCat("lease_id = ", lease.value, " is over or was never given: acquire again"));
}

}  // namespace

absl::StatusOr<LookupResult> ShardEngineImpl::Lookup(AttachmentId attachment, SpecHandle spec,
                                                     std::span<const BlockKey> keys) {
  REPRISE_ASSIGN_OR_RETURN(const KeySpaceId space, attachments_.Resolve(attachment, spec));
  counters_.Add(Counter::kLookups);
  LookupResult result{.run_blocks = index_.RunLength(space, keys)};
  if (pool_->levels() == 1) {
    if (result.run_blocks > 0)
      result.tiers = {{.tier = pool_->tier(0), .blocks = result.run_blocks}};
    return result;
  }
  for (uint32_t i = 0; i < result.run_blocks; ++i) {
    const std::optional<IndexEntry> entry = index_.Find(SpaceKey{space, keys[i]});
    if (!entry.has_value()) result.run_blocks = i;  // it went meanwhile
    if (entry.has_value()) AddToTiers(entry->tier, result.tiers);
  }
  return result;
}

absl::StatusOr<AcquireResult> ShardEngineImpl::Acquire(AttachmentId attachment,
                                                       const AcquireArgs& args) {
  REPRISE_ASSIGN_OR_RETURN(const KeySpaceId space_id, attachments_.Resolve(attachment, args.spec));
  const absl::Time now = clock_.Now();
  const absl::Duration ttl = args.ttl > absl::ZeroDuration() ? args.ttl : limits::kLeaseTtl;
  std::vector<uint64_t> order_keys;  // hashed outside the lock: there may be many
  order_keys.reserve(args.keys.size());
  for (const BlockKey& key : args.keys) order_keys.push_back(OrderKeyOf(SpaceKey{space_id, key}));
  Locked lock(this);
  Settle(now);
  REPRISE_ASSIGN_OR_RETURN(Holdings* const holdings, HoldingsOf(attachment));
  KeySpace& space = SpaceOf(space_id);
  std::vector<BlockId> run = StoredRun(space, args.keys);
  CountRun(space, args.keys.size(), run.size());
  NoteAsked(space, order_keys);
  AcquireResult result;
  result.run_blocks = static_cast<uint32_t>(run.size());
  for (auto block = run.rbegin(); block != run.rend(); ++block) order_.Use(*block, now);
  if (args.first_block >= run.size()) return result;
  if (holdings->leases.size() >= limits::kLeasesPerAttachmentMax) {
    counters_.Add(Counter::kRefusedLeases);
    return Refusal(absl::StatusCode::kResourceExhausted, "LEASES_MAX",
                   absl::StrCat("this attachment holds kLeasesPerAttachmentMax = ",
                                limits::kLeasesPerAttachmentMax, " leases: release some"));
  }
  run.erase(run.begin(), run.begin() + args.first_block);
  result.checksums.reserve(run.size());
  for (BlockId id : run) {
    if (++blocks_[id].leases == 1) JudgeAsEnd(id);
    result.checksums.push_back(blocks_[id].checksum);
  }
  result.tiers = TiersOf(run);
  result.lease = LeaseId(next_lease_++);
  Lease& lease = leases_[result.lease];
  lease = Lease{.attachment = attachment,
                .first_block = args.first_block,
                .blocks = std::move(run),
                .born = now,
                .ttl = std::min(ttl, limits::kLeaseTtlMax)};
  holdings->leases.insert(result.lease);
  due_.push(Due{.at = now + lease.ttl, .lease = result.lease});
  return result;
}

// The blocks of the longest stored prefix of `keys`, each the parent of the next.
std::vector<BlockId> ShardEngineImpl::StoredRun(const KeySpace& space,
                                                std::span<const BlockKey> keys) const {
  std::vector<BlockId> run;
  run.reserve(index_.RunLength(space.id, keys));
  BlockId parent = kNoBlock;
  for (const BlockKey& key : keys) {
    const std::optional<IndexEntry> entry = index_.Find(SpaceKey{space.id, key});
    if (!entry.has_value() || blocks_[entry->block].parent != parent) break;
    run.push_back(entry->block);
    parent = entry->block;
  }
  return run;
}

void ShardEngineImpl::CountRun(const KeySpace& space, size_t asked, size_t stored) {
  counters_.Add(Counter::kAcquires);
  counters_.Add(Counter::kHitBlocks, stored);
  counters_.Add(Counter::kMissBlocks, asked - stored);
  counters_.Add(Counter::kHitTokens, stored * space.spec.block_tokens);
  counters_.Add(Counter::kMissTokens, (asked - stored) * space.spec.block_tokens);
}

absl::StatusOr<uint32_t> ShardEngineImpl::Release(AttachmentId attachment,
                                                  std::span<const LeaseId> leases) {
  Locked lock(this);
  REPRISE_ASSIGN_OR_RETURN(Holdings* const holdings, HoldingsOf(attachment));
  Settle(clock_.Now());
  uint32_t released = 0;
  for (LeaseId lease : leases) {
    if (!holdings->leases.contains(lease)) continue;
    EndLease(lease);
    ++released;
  }
  return released;
}

// A keep-alive extends every lease of its attachment, without being told to each of them.
absl::Time ShardEngineImpl::LeaseEnd(const Lease& lease) const {
  const absl::Time used = std::max(lease.born, attachments_.last_seen(lease.attachment));
  return std::min(used + lease.ttl, lease.born + limits::kLeaseAgeMax);
}

void ShardEngineImpl::EndLease(LeaseId id) {
  const auto it = leases_.find(id);
  const auto holdings = holdings_.find(it->second.attachment);
  if (holdings != holdings_.end()) holdings->second.leases.erase(id);
  for (BlockId block : it->second.blocks) {
    BlockRecord& record = blocks_[block];
    if (--record.leases == 0 && record.state == BlockState::kCommitted) JudgeAsEnd(block);
    FreeIfIdle(block);
  }
  leases_.erase(it);
  pressure_moved_ = true;
}

absl::StatusOr<std::vector<lanes::PinnedBytes>> ShardEngineImpl::OpenRead(AttachmentId attachment,
                                                                          LeaseId lease,
                                                                          uint32_t first,
                                                                          uint32_t blocks) {
  Locked lock(this);
  Settle(clock_.Now());
  REPRISE_RETURN_IF_ERROR(HoldingsOf(attachment).status());
  const auto it = leases_.find(lease);
  if (it == leases_.end() || it->second.attachment != attachment) return LeaseOver(lease);
  const uint64_t begin = it->second.first_block;
  const uint64_t end = begin + it->second.blocks.size();
  const uint64_t stop = blocks == 0 ? end : uint64_t{first} + blocks;
  if (first < begin || first >= end || stop > end) {
    return Refusal(absl::StatusCode::kOutOfRange, "BLOCK_NOT_LEASED",
                   absl::StrCat("blocks [", first, ", ", stop, ") are not all leased: lease_id = ",
                                lease.value, " has [", begin, ", ", end, ")"));
  }
  std::vector<BlockId> ids(it->second.blocks.begin() + (first - begin),
                           it->second.blocks.begin() + (stop - begin));
  for (BlockId id : ids) {
    if (pool_->lost(pool_->LevelOf(blocks_[id].slot))) {
      const bool disk = pool_->TierOf(blocks_[id].slot) == Tier::kNvme;
      return Refusal(
          absl::StatusCode::kInternal, disk ? "SHARD_DISK_LOST" : "SHARD_GPU_LOST",
          absl::StrCat("block ", ToHex(blocks_[id].key), " lay on a ", disk ? "disk" : "GPU",
                       " of the shard that was lost since it was leased: compute it"));
    }
    if (blocks_[id].state != BlockState::kQuarantined) continue;
    return Refusal(absl::StatusCode::kNotFound, "BLOCK_QUARANTINED",
                   absl::StrCat("block ", ToHex(blocks_[id].key),
                                " failed its checksum since it was leased: compute it"));
  }
  std::vector<lanes::PinnedBytes> opened(ids.size());
  const uint64_t block_bytes = SpaceOf(blocks_[ids[0]].space).shape.block_bytes;
  for (size_t i = 0; i < ids.size(); ++i) {
    ++blocks_[ids[i]].pins;
    const SlotRef slot = blocks_[ids[i]].slot;
    opened[i].bytes = {pool_->Address(slot), block_bytes};
    opened[i].memory = MemoryOf(slot);
  }
  const std::shared_ptr<const void> pin = PinBoard::Pin(pins_, std::move(ids));
  for (lanes::PinnedBytes& bytes : opened) bytes.pin = pin;
  counters_.Add(Counter::kReadBlocks, opened.size());
  counters_.Add(Counter::kReadBytes, opened.size() * block_bytes);
  return opened;
}

void ShardEngineImpl::Unpinned(const std::vector<BlockId>& blocks) {
  Locked lock(this);
  for (BlockId id : blocks) {
    --blocks_[id].pins;
    FreeIfIdle(id);
  }
  pressure_moved_ = true;
}

}  // namespace reprise::shard
