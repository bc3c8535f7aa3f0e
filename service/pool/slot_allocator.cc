#include "service/pool/slot_allocator.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "proto/types/limits.h"
#include "proto/types/status_macros.h"

namespace reprise::shard {
namespace {

// Takes `list[at]` out by putting the last one in its place; returns the one that moved.
uint32_t SwapOut(std::vector<uint32_t>& list, uint32_t at) {
  list[at] = list.back();
  list.pop_back();
  return at < list.size() ? list[at] : UINT32_MAX;
}

}  // namespace

SlotAllocator::SlotAllocator(uint32_t extents, uint64_t extent_bytes, KeySpaceId previous_owner)
    : extent_bytes_(extent_bytes), extents_(extents) {
  REPRISE_CHECK(extents > 0 && extent_bytes > 0);
  unowned_.reserve(extents);
  for (uint32_t i = extents; i > 0; --i) {
    extents_[i - 1].previous_owner = previous_owner;
    extents_[i - 1].unowned_at = static_cast<uint32_t>(unowned_.size());
    unowned_.push_back(i - 1);
  }
}

uint64_t SlotAllocator::SlotBytes(uint64_t block_bytes) {
  constexpr uint64_t kAlign = limits::kSlotAlignBytes;
  return (block_bytes + kAlign - 1) / kAlign * kAlign;
}

std::optional<SlotAllocator::Grant> SlotAllocator::Allocate(KeySpaceId space,
                                                            uint64_t block_bytes) {
  const uint64_t slot_bytes = SlotBytes(block_bytes);
  REPRISE_CHECK(slot_bytes > 0 && slot_bytes <= extent_bytes_);
  Grant grant;
  auto it = spaces_.find(space);
  if (it == spaces_.end() || it->second.roomy.empty()) {
    if (unowned_.empty()) return std::nullopt;
    const uint32_t opened = unowned_.back();
    grant.opened_extent = true;
    grant.previous_owner = extents_[opened].previous_owner;
    Open(opened, space, slot_bytes);
    it = spaces_.find(space);
  }
  const uint32_t at = it->second.roomy.back();
  REPRISE_CHECK(extents_[at].slot_bytes == slot_bytes);
  grant.slot = SlotRef{at, extents_[at].free.back()};
  MarkUsed(grant.slot);
  return grant;
}

bool SlotAllocator::MayTake(KeySpaceId space, uint64_t slot_bytes, SlotRef slot) const {
  if (slot_bytes == 0 || slot_bytes > extent_bytes_ || slot.extent >= extents_.size()) return false;
  if (slot.index >= extent_bytes_ / slot_bytes) return false;
  const auto it = spaces_.find(space);
  if (it != spaces_.end() && extents_[it->second.owned.front()].slot_bytes != slot_bytes) {
    return false;
  }
  const Extent& extent = extents_[slot.extent];
  if (extent.owner) return extent.owner == space && extent.free_at[slot.index] != kNowhere;
  return !extent.previous_owner || extent.previous_owner == space ||
         extent.previous_owner == kEarlierProcess;
}

bool SlotAllocator::Take(KeySpaceId space, uint64_t block_bytes, SlotRef slot) {
  const uint64_t slot_bytes = SlotBytes(block_bytes);
  if (!MayTake(space, slot_bytes, slot)) return false;
  if (!extents_[slot.extent].owner) Open(slot.extent, space, slot_bytes);
  MarkUsed(slot);
  return true;
}

void SlotAllocator::Undo(const Grant& grant) {
  REPRISE_CHECK(grant.opened_extent);
  Free(grant.slot);
  REPRISE_CHECK(!unowned_.empty() && unowned_.back() == grant.slot.extent);
  extents_[grant.slot.extent].previous_owner = grant.previous_owner;
  std::rotate(unowned_.begin(), unowned_.end() - 1, unowned_.end());
  for (uint32_t i = 0; i < unowned_.size(); ++i) extents_[unowned_[i]].unowned_at = i;
}

void SlotAllocator::Free(SlotRef slot) {
  REPRISE_CHECK(in_use(slot));
  Extent& extent = extents_[slot.extent];
  Space& space = spaces_[extent.owner];
  extent.free_at[slot.index] = static_cast<uint32_t>(extent.free.size());
  extent.free.push_back(slot.index);
  --extent.used;
  --space.used_slots;
  used_bytes_ -= extent.slot_bytes;
  charged_bytes_ -= Charge(extent);
  if (extent.used == 0) {
    Close(slot.extent);
  } else if (extent.roomy_at == kNowhere && !extent.draining) {
    AddRoomy(slot.extent);
  }
}

void SlotAllocator::SetDraining(uint32_t at, bool draining) {
  Extent& extent = extents_[at];
  if (!extent.owner || extent.draining == draining) return;
  extent.draining = draining;
  if (draining && extent.roomy_at != kNowhere) RemoveRoomy(at);
  if (!draining && !extent.free.empty()) AddRoomy(at);
}

bool SlotAllocator::in_use(SlotRef slot) const {
  if (slot.extent >= extents_.size()) return false;
  const Extent& extent = extents_[slot.extent];
  return slot.index < extent.slots && extent.free_at[slot.index] == kNowhere;
}

SpaceUse SlotAllocator::Use(KeySpaceId space) const {
  SpaceUse use;
  const auto it = spaces_.find(space);
  if (it == spaces_.end()) return use;
  use.extents = static_cast<uint32_t>(it->second.owned.size());
  use.slots_per_extent = extents_[it->second.owned.front()].slots;
  use.used_slots = it->second.used_slots;
  for (uint32_t at : it->second.roomy) use.free_slots += extents_[at].free.size();
  return use;
}

std::vector<uint32_t> SlotAllocator::ExtentsOf(KeySpaceId space) const {
  const auto it = spaces_.find(space);
  return it == spaces_.end() ? std::vector<uint32_t>() : it->second.owned;
}

void SlotAllocator::Open(uint32_t at, KeySpaceId owner, uint64_t slot_bytes) {
  REPRISE_CHECK(owner && owner != kEarlierProcess);
  Extent& extent = extents_[at];
  Space& space = spaces_[owner];
  const uint32_t moved = SwapOut(unowned_, extent.unowned_at);
  if (moved != kNowhere) extents_[moved].unowned_at = extent.unowned_at;
  extent.unowned_at = kNowhere;
  extent.owner = owner;
  extent.slot_bytes = slot_bytes;
  extent.slots = static_cast<uint32_t>(extent_bytes_ / slot_bytes);
  extent.free.resize(extent.slots);
  extent.free_at.resize(extent.slots);
  for (uint32_t i = 0; i < extent.slots; ++i) {
    extent.free[i] = extent.free_at[i] = extent.slots - 1 - i;
  }
  extent.owned_at = static_cast<uint32_t>(space.owned.size());
  space.owned.push_back(at);
  AddRoomy(at);
}

void SlotAllocator::Close(uint32_t at) {
  Extent& extent = extents_[at];
  if (extent.roomy_at != kNowhere) RemoveRoomy(at);
  const auto it = spaces_.find(extent.owner);
  const uint32_t moved = SwapOut(it->second.owned, extent.owned_at);
  if (moved != kNowhere) extents_[moved].owned_at = extent.owned_at;
  if (it->second.owned.empty()) spaces_.erase(it);
  extent.previous_owner = extent.owner;
  extent.owner = KeySpaceId();
  extent.draining = false;
  extent.owned_at = kNowhere;
  extent.slots = 0;
  extent.free.clear();
  extent.unowned_at = static_cast<uint32_t>(unowned_.size());
  unowned_.push_back(at);
}

void SlotAllocator::MarkUsed(SlotRef slot) {
  Extent& extent = extents_[slot.extent];
  const uint32_t moved = SwapOut(extent.free, extent.free_at[slot.index]);
  if (moved != kNowhere) extent.free_at[moved] = extent.free_at[slot.index];
  extent.free_at[slot.index] = kNowhere;
  ++extent.used;
  ++spaces_[extent.owner].used_slots;
  used_bytes_ += extent.slot_bytes;
  charged_bytes_ += Charge(extent);
  if (extent.free.empty() && extent.roomy_at != kNowhere) RemoveRoomy(slot.extent);
}

void SlotAllocator::AddRoomy(uint32_t at) {
  std::vector<uint32_t>& roomy = spaces_[extents_[at].owner].roomy;
  extents_[at].roomy_at = static_cast<uint32_t>(roomy.size());
  roomy.push_back(at);
}

void SlotAllocator::RemoveRoomy(uint32_t at) {
  Extent& extent = extents_[at];
  const uint32_t moved = SwapOut(spaces_[extent.owner].roomy, extent.roomy_at);
  if (moved != kNowhere) extents_[moved].roomy_at = extent.roomy_at;
  extent.roomy_at = kNowhere;
}

absl::Status SlotAllocator::CheckExtent(uint32_t at) const {
  const Extent& extent = extents_[at];
  const auto wrong = [at](absl::string_view what) {
    return absl::InternalError(absl::StrCat("extent ", at, ": ", what));
  };
  if (!extent.owner) {
    if (extent.used != 0 || extent.owned_at != kNowhere || extent.roomy_at != kNowhere) {
      return wrong("is unowned but in use or listed");
    }
    return unowned_.at(extent.unowned_at) == at ? absl::OkStatus()
                                                : wrong("is not in the list of the unowned");
  }
  if (extent.unowned_at != kNowhere) return wrong("has an owner but is listed as unowned");
  const auto space = spaces_.find(extent.owner);
  if (space == spaces_.end()) return wrong("has an owner that is not known");
  if (space->second.owned.at(extent.owned_at) != at) return wrong("is not in its owner's list");
  const auto taken =
      static_cast<uint32_t>(std::count(extent.free_at.begin(), extent.free_at.end(), kNowhere));
  if (taken != extent.used || taken == 0) return wrong("counts its slots in use wrongly");
  if (extent.free.size() + taken != extent.slots) return wrong("lost or doubled a slot");
  for (uint32_t i = 0; i < extent.free.size(); ++i) {
    if (extent.free_at[extent.free[i]] == kNowhere) return wrong("has a slot both free and in use");
    if (extent.free_at[extent.free[i]] != i) return wrong("has a free slot at a wrong position");
  }
  const bool roomy = !extent.free.empty() && !extent.draining;
  if (roomy != (extent.roomy_at != kNowhere)) return wrong("is listed as roomy wrongly");
  if (roomy && space->second.roomy.at(extent.roomy_at) != at)
    return wrong("has a wrong roomy position");
  return absl::OkStatus();
}

absl::Status SlotAllocator::CheckInvariants() const {
  uint64_t used_bytes = 0, charged_bytes = 0, owned = 0, used_slots = 0;
  for (uint32_t at = 0; at < extents_.size(); ++at) {
    REPRISE_RETURN_IF_ERROR(CheckExtent(at));
    const Extent& extent = extents_[at];
    if (!extent.owner) continue;
    ++owned;
    used_slots += extent.used;
    used_bytes += extent.used * extent.slot_bytes;
    charged_bytes += extent.used * Charge(extent);
  }
  uint64_t listed = 0, listed_slots = 0;
  for (const auto& [id, space] : spaces_) {
    listed += space.owned.size();
    listed_slots += space.used_slots;
  }
  if (listed != owned || owned + unowned_.size() != extents_.size()) {
    return absl::InternalError("extents are listed wrongly");
  }
  if (listed_slots != used_slots) return absl::InternalError("slots per key space do not add up");
  if (used_bytes != used_bytes_ || charged_bytes != charged_bytes_) {
    return absl::InternalError(
        absl::StrCat("used bytes are ", used_bytes, ", accounted ", used_bytes_));
  }
  return absl::OkStatus();
}

}  // namespace reprise::shard
