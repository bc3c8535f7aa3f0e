// Tenants' quotas: what each has, and room for a block within what it may have. A tenant that is at
// its quota makes room with its own coldest blocks, and with nobody else's.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "service/shard/shard_engine_impl.h"

namespace reprise::shard {

void ShardEngineImpl::SlotTaken(KeySpace& space) {
  space.tally->bytes += SlotAllocator::SlotBytes(space.shape.block_bytes);
}

void ShardEngineImpl::SlotGivenBack(KeySpace& space) {
  space.tally->bytes -= SlotAllocator::SlotBytes(space.shape.block_bytes);
}

// The same as its key spaces' `tally`, from their counts.
uint64_t ShardEngineImpl::TenantBytes(const Tenant& tenant) const {
  uint64_t bytes = 0;
  for (const auto& [id, space] : spaces_) {
    if (space->tenant != tenant) continue;
    bytes += (space->blocks + space->reserved + space->held_back) *
             SlotAllocator::SlotBytes(space->shape.block_bytes);
  }
  return bytes;
}

// Whether one more block of this key space is.
bool ShardEngineImpl::WithinQuota(const KeySpace& space) const {
  const uint64_t quota = options_.quotas.Of(space.tenant);
  return quota == TenantQuotas::kNone ||
         space.tally->bytes + SlotAllocator::SlotBytes(space.shape.block_bytes) <= quota;
}

// False when every block of the tenant that could go is being read or written, or is pinned.
bool ShardEngineImpl::MakeRoomWithinQuota(const KeySpace& space) {
  absl::flat_hash_set<uint32_t> exhausted;
  while (!WithinQuota(space)) {
    if (LetGoAny(&space.tenant)) continue;
    // Above the last tier many ends have blocks beneath them, and cannot go.
    std::optional<Group> coldest = ColdestGroup(pool_->last(), exhausted, &space.tenant);
    if (!coldest.has_value()) coldest = ColdestGroup(std::nullopt, exhausted, &space.tenant);
    if (!coldest.has_value()) return false;
    if (EvictOne(*coldest->space, coldest->level, DropCause::kQuota, space.id)) {
      exhausted.clear();  // what hung above the block that went may go now
    } else {
      exhausted.insert(GroupOf(coldest->space->id, coldest->level));
    }
  }
  return true;
}

absl::Status ShardEngineImpl::QuotaRefusal(const KeySpace& space) const {
  const uint64_t quota = options_.quotas.Of(space.tenant);
  const uint64_t block = SlotAllocator::SlotBytes(space.shape.block_bytes);
  const std::string has = absl::StrCat("tenant \"", space.tenant.name, "\" has ",
                                       space.tally->bytes, " of its ", quota, " bytes here");
  if (block > quota) {
    return Refusal(absl::StatusCode::kFailedPrecondition, "TENANT_QUOTA_BELOW_BLOCK",
                   absl::StrCat(has, ", and one block is ", block, ": raise its --tenant-quota"));
  }
  return Refusal(
      absl::StatusCode::kResourceExhausted, "TENANT_QUOTA",
      absl::StrCat(
          has, ", and each block of them is being read or written, or is pinned; try again after ",
          absl::FormatDuration(limits::kRetryAfter), " or raise its --tenant-quota"));
}

std::vector<TenantUse> ShardEngineImpl::TenantUses() const {
  std::vector<TenantUse> uses;
  for (const auto& [tenant, spaces] : space_ids_) {
    if (spaces.empty()) continue;
    uses.push_back({.tenant = tenant,
                    .used_bytes = SpaceOf(spaces.begin()->second).tally->bytes,
                    .quota_bytes = options_.quotas.Of(tenant)});
  }
  std::sort(uses.begin(), uses.end(),
            [](const TenantUse& a, const TenantUse& b) { return a.tenant < b.tenant; });
  return uses;
}

}  // namespace reprise::shard
