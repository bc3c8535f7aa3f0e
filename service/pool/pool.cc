#include "service/pool/pool.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "proto/types/status_macros.h"

namespace reprise::shard {

Pool::Pool(uint32_t extents, uint64_t extent_bytes, KeySpaceId previous_owner)
    : extents_(extents),
      extent_bytes_(extent_bytes),
      slots_(extents, extent_bytes, previous_owner),
      exported_(extents, 0) {
  for (uint32_t i = 0; i < extents; ++i) extent_ids_.push_back(next_extent_id_++);
}

std::optional<SlotRef> Pool::Allocate(KeySpaceId space, uint64_t block_bytes) {
  absl::MutexLock lock(&mu_);
  // An extent that cannot be made ready for its next owner stays as it is, and the next one is
  // tried.
  for (uint32_t tries = 0; tries <= extents_; ++tries) {
    if (lost()) return std::nullopt;
    const std::optional<SlotAllocator::Grant> grant = slots_.Allocate(space, block_bytes);
    if (!grant.has_value()) return std::nullopt;
    const bool changes_hands =
        grant->opened_extent && grant->previous_owner && grant->previous_owner != space;
    if (!changes_hands || Prepare(grant->slot.extent).ok()) return grant->slot;
    slots_.Undo(*grant);
  }
  return std::nullopt;
}

absl::Status Pool::Prepare(uint32_t extent) {
  if (exported_[extent] == 0) return Wipe(extent);
  REPRISE_RETURN_IF_ERROR(Renew(extent));
  exported_[extent] = 0;
  extent_ids_[extent] = next_extent_id_++;
  return absl::OkStatus();
}

bool Pool::Take(KeySpaceId space, uint64_t block_bytes, SlotRef slot) {
  if (!Fits(block_bytes)) return false;
  absl::MutexLock lock(&mu_);
  return slots_.Take(space, block_bytes, slot);
}

void Pool::Free(SlotRef slot) {
  absl::MutexLock lock(&mu_);
  slots_.Free(slot);
}

void Pool::SetDraining(uint32_t extent, bool draining) {
  absl::MutexLock lock(&mu_);
  slots_.SetDraining(extent, draining);
}

uint8_t* Pool::Address(SlotRef slot) const {
  absl::MutexLock lock(&mu_);
  return ExtentAddress(slot.extent) + slot.index * slots_.slot_bytes(slot.extent);
}

absl::Status Pool::Copy(SlotRef from, SlotRef to, uint64_t bytes) {
  return CopyBytes(Address(from), Address(to), bytes);
}

absl::Status Pool::CopyToHost(const uint8_t* from, std::span<uint8_t> to) {
  REPRISE_CHECK(Holds(from));
  return CopyBytes(from, to.data(), to.size());
}

absl::Status Pool::CopyFromHost(std::span<const uint8_t> from, uint8_t* to) {
  REPRISE_CHECK(Holds(to));
  return CopyBytes(from.data(), to, from.size());
}

bool Pool::Holds(const uint8_t* address) const {
  for (uint32_t at = 0; at < extents_; ++at) {
    const uint8_t* const base = ExtentAddress(at);
    if (address >= base && address < base + extent_bytes_) return true;
  }
  return false;
}

absl::StatusOr<std::vector<Checksum128>> Pool::Checksums(std::span<const SlotRef> slots,
                                                         const BlockShape& shape) const {
  std::vector<const uint8_t*> blocks;
  blocks.reserve(slots.size());
  for (SlotRef slot : slots) blocks.push_back(Address(slot));
  std::vector<Checksum128> checksums(slots.size());
  REPRISE_RETURN_IF_ERROR(ChecksumBytes(blocks, shape, checksums));
  return checksums;
}

std::optional<ExtentPlace> Pool::Export(const uint8_t* address) {
  if (!shareable()) return std::nullopt;
  absl::MutexLock lock(&mu_);
  for (uint32_t at = 0; at < extents_; ++at) {
    const uint8_t* base = ExtentAddress(at);
    if (address < base || address >= base + extent_bytes_ || !slots_.owner(at)) continue;
    exported_[at] = 1;
    return ExtentPlace{.extent_id = extent_ids_[at],
                       .extent = at,
                       .fd = ExtentFd(at),
                       .offset_bytes = static_cast<uint64_t>(address - base),
                       .extent_bytes = extent_bytes_};
  }
  return std::nullopt;
}

absl::StatusOr<HbmHandle> Pool::Share(uint32_t, AttachmentId) {
  return absl::UnavailableError("memory of this tier is not shared by CUDA IPC");
}

SpaceUse Pool::Use(KeySpaceId space) const {
  absl::MutexLock lock(&mu_);
  return slots_.Use(space);
}

std::vector<uint32_t> Pool::ExtentsOf(KeySpaceId space) const {
  absl::MutexLock lock(&mu_);
  return slots_.ExtentsOf(space);
}

uint32_t Pool::used_slots(uint32_t extent) const {
  absl::MutexLock lock(&mu_);
  return slots_.used_slots(extent);
}

uint32_t Pool::unowned_extents() const {
  absl::MutexLock lock(&mu_);
  return slots_.unowned_extents();
}

uint32_t Pool::ExtentsOpenTo(KeySpaceId space) const {
  absl::MutexLock lock(&mu_);
  return static_cast<uint32_t>(
      std::count_if(slots_.unowned().begin(), slots_.unowned().end(), [&](uint32_t at) {
        const KeySpaceId previous = slots_.previous_owner(at);
        return !previous || previous == space || Transferable(at);
      }));
}

uint64_t Pool::used_bytes() const {
  absl::MutexLock lock(&mu_);
  return slots_.used_bytes();
}

double Pool::pressure() const {
  absl::MutexLock lock(&mu_);
  return static_cast<double>(slots_.charged_bytes()) / static_cast<double>(capacity_bytes());
}

absl::Status Pool::CheckInvariants(const absl::flat_hash_set<SlotRef>& in_use) const {
  absl::MutexLock lock(&mu_);
  REPRISE_RETURN_IF_ERROR(slots_.CheckInvariants());
  uint64_t expected = 0;
  for (uint32_t at = 0; at < extents_; ++at) expected += slots_.used_slots(at);
  if (expected != in_use.size()) {
    return absl::InternalError(
        absl::StrCat(expected, " slots in use, ", in_use.size(), " are held"));
  }
  for (const SlotRef& slot : in_use) {
    if (!slots_.in_use(slot)) {
      return absl::InternalError(
          absl::StrCat("slot ", slot.extent, "/", slot.index, " is held but free"));
    }
  }
  return absl::OkStatus();
}

}  // namespace reprise::shard
