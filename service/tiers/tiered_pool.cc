#include "service/tiers/tiered_pool.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "proto/types/status_macros.h"

namespace reprise::shard {

TieredPool::TieredPool(std::vector<std::unique_ptr<Pool>> fastest_first) {
  REPRISE_CHECK(!fastest_first.empty());
  for (std::unique_ptr<Pool>& pool : fastest_first) {
    for (const Part& other : pools_) REPRISE_CHECK(other.pool->tier() != pool->tier());
    const uint32_t extents = pool->extents();
    pools_.push_back({.pool = std::move(pool), .first_extent = extents_});
    extents_ += extents;
  }
}

Level TieredPool::LevelOf(uint32_t extent) const {
  REPRISE_CHECK(extent < extents_);
  Level level = last();
  while (extent < pools_[level].first_extent) --level;
  return level;
}

std::pair<Pool*, uint32_t> TieredPool::Find(uint32_t extent) const {
  const Part& part = pools_[LevelOf(extent)];
  return {part.pool.get(), extent - part.first_extent};
}

std::pair<Pool*, SlotRef> TieredPool::Find(SlotRef slot) const {
  const auto [pool, extent] = Find(slot.extent);
  return {pool, SlotRef{extent, slot.index}};
}

std::optional<SlotRef> TieredPool::Allocate(Level level, KeySpaceId space, uint64_t block_bytes) {
  if (!at(level).Fits(block_bytes)) return std::nullopt;
  std::optional<SlotRef> slot = at(level).Allocate(space, block_bytes);
  if (slot.has_value()) slot->extent += pools_[level].first_extent;
  return slot;
}

std::optional<SlotRef> TieredPool::Take(Level level, KeySpaceId space, uint64_t block_bytes,
                                        SlotRef slot_of_pool) {
  if (!at(level).Take(space, block_bytes, slot_of_pool)) return std::nullopt;
  return SlotRef{slot_of_pool.extent + pools_[level].first_extent, slot_of_pool.index};
}

uint64_t TieredPool::Room(Level level, KeySpaceId space, uint64_t block_bytes) const {
  if (!at(level).Fits(block_bytes)) return 0;
  const uint64_t slots_per_extent =
      at(level).extent_bytes() / SlotAllocator::SlotBytes(block_bytes);
  return at(level).Use(space).free_slots + at(level).ExtentsOpenTo(space) * slots_per_extent;
}

std::vector<uint32_t> TieredPool::ExtentsOf(Level level, KeySpaceId space) const {
  std::vector<uint32_t> extents = at(level).ExtentsOf(space);
  for (uint32_t& extent : extents) extent += pools_[level].first_extent;
  return extents;
}

uint64_t TieredPool::extent_bytes_max() const {
  uint64_t largest = 0;
  for (const Part& part : pools_) largest = std::max(largest, part.pool->extent_bytes());
  return largest;
}

bool TieredPool::FitsAny(uint64_t block_bytes) const {
  return std::any_of(pools_.begin(), pools_.end(),
                     [&](const Part& part) { return part.pool->Fits(block_bytes); });
}

void TieredPool::Free(SlotRef slot) {
  const auto [pool, place] = Find(slot);
  pool->Free(place);
}

void TieredPool::SetDraining(uint32_t extent, bool draining) {
  const auto [pool, number] = Find(extent);
  pool->SetDraining(number, draining);
}

bool TieredPool::Transferable(uint32_t extent) const {
  const auto [pool, number] = Find(extent);
  return pool->Transferable(number);
}

uint32_t TieredPool::used_slots(uint32_t extent) const {
  const auto [pool, number] = Find(extent);
  return pool->used_slots(number);
}

uint8_t* TieredPool::Address(SlotRef slot) const {
  const auto [pool, place] = Find(slot);
  return pool->Address(place);
}

absl::StatusOr<std::vector<Checksum128>> TieredPool::Checksums(std::span<const SlotRef> slots,
                                                               const BlockShape& shape) const {
  std::vector<Checksum128> checksums;
  checksums.reserve(slots.size());
  std::vector<SlotRef> places;
  for (size_t first = 0; first < slots.size(); first += places.size()) {
    const Level level = LevelOf(slots[first]);
    places.clear();
    for (size_t i = first; i < slots.size() && LevelOf(slots[i]) == level; ++i) {
      places.push_back(Find(slots[i]).second);
    }
    REPRISE_ASSIGN_OR_RETURN(const std::vector<Checksum128> part,
                             at(level).Checksums(places, shape));
    checksums.insert(checksums.end(), part.begin(), part.end());
  }
  return checksums;
}

absl::Status TieredPool::Copy(SlotRef from, SlotRef to, uint64_t bytes) {
  const auto [source, source_slot] = Find(from);
  const auto [target, target_slot] = Find(to);
  if (source == target) return source->Copy(source_slot, target_slot, bytes);
  uint8_t* const source_bytes = source->Address(source_slot);
  uint8_t* const target_bytes = target->Address(target_slot);
  // Whoever is not in host memory knows how to reach both; two of them meet there.
  if (source->cpu_reaches()) return target->CopyFromHost({source_bytes, bytes}, target_bytes);
  if (target->cpu_reaches()) return source->CopyToHost(source_bytes, {target_bytes, bytes});
  std::vector<uint8_t> staged(bytes);
  REPRISE_RETURN_IF_ERROR(source->CopyToHost(source_bytes, staged));
  return target->CopyFromHost(staged, target_bytes);
}

Pool* TieredPool::PoolBeyondCpu(const uint8_t* address) const {
  for (const Part& part : pools_) {
    if (!part.pool->cpu_reaches() && part.pool->Holds(address)) return part.pool.get();
  }
  return nullptr;
}

absl::Status TieredPool::CopyToHost(std::span<const uint8_t> from, std::span<uint8_t> to) {
  REPRISE_CHECK(from.size() == to.size());
  Pool* const pool = PoolBeyondCpu(from.data());
  if (pool == nullptr) return absl::InternalError("no pool beyond host memory has that address");
  return pool->CopyToHost(from.data(), to);
}

absl::Status TieredPool::CopyFromHost(std::span<const uint8_t> from, std::span<uint8_t> to) {
  REPRISE_CHECK(from.size() == to.size());
  Pool* const pool = PoolBeyondCpu(to.data());
  if (pool == nullptr) return absl::InternalError("no pool beyond host memory has that address");
  return pool->CopyFromHost(from, to.data());
}

std::optional<ExtentPlace> TieredPool::Export(const uint8_t* address) {
  for (Level level = 0; level < levels(); ++level) {
    std::optional<ExtentPlace> place = at(level).Export(address);
    if (!place.has_value()) continue;
    place->extent += pools_[level].first_extent;
    // Every pool counts its extents from 1.
    place->extent_id = place->extent_id * levels() + level;
    return place;
  }
  return std::nullopt;
}

absl::StatusOr<HbmHandle> TieredPool::Share(uint32_t extent, AttachmentId attachment) {
  const auto [pool, number] = Find(extent);
  return pool->Share(number, attachment);
}

void TieredPool::Unshared(AttachmentId attachment) {
  for (const Part& part : pools_) part.pool->Unshared(attachment);
}

absl::Status TieredPool::CheckInvariants(const absl::flat_hash_set<SlotRef>& in_use) const {
  std::vector<absl::flat_hash_set<SlotRef>> by_level(levels());
  for (const SlotRef& slot : in_use) {
    if (slot.extent >= extents_) {
      return absl::InternalError(absl::StrCat("there is no extent ", slot.extent));
    }
    by_level[LevelOf(slot)].insert(Find(slot).second);
  }
  for (Level level = 0; level < levels(); ++level) {
    if (absl::Status sound = at(level).CheckInvariants(by_level[level]); !sound.ok()) {
      return absl::InternalError(absl::StrCat(TierName(tier(level)), ": ", sound.message()));
    }
  }
  return absl::OkStatus();
}

}  // namespace reprise::shard
