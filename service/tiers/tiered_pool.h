// Several pools, the fastest first, as one address space of slots: an extent has one number, and
// the number says in which pool it lies. What is asked of one slot or extent goes to its pool; what
// is asked of a level goes to the pool of that level.
//
// Invariants: a slot's level never changes; extent ids of Export are never the same for two pieces
// of memory, of whichever pools.
//
// Thread safety: as Pool.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/types/checksum128.h"
#include "proto/types/ids.h"
#include "service/pool/pool.h"

namespace reprise::shard {

// 0 is the fastest tier of a shard.
using Level = uint32_t;

class TieredPool {
 public:
  // REQUIRES: at least one pool, each of another tier.
  explicit TieredPool(std::vector<std::unique_ptr<Pool>> fastest_first);

  Level levels() const { return static_cast<Level>(pools_.size()); }
  Level last() const { return levels() - 1; }
  Level LevelOf(uint32_t extent) const;
  Level LevelOf(SlotRef slot) const { return LevelOf(slot.extent); }
  Tier tier(Level level) const { return pools_[level].pool->tier(); }
  Tier TierOf(SlotRef slot) const { return tier(LevelOf(slot)); }

  // ---- Of one level
  // Whether its memory is out of reach for good: it takes no block, and what it has cannot be read.
  bool lost(Level level) const { return at(level).lost(); }
  bool Fits(Level level, uint64_t block_bytes) const { return at(level).Fits(block_bytes); }
  // A slot for a block of `space`; nullopt when its extents are full and no other one is unowned,
  // or when such a block does not fit an extent. REQUIRES: one block size per key space.
  std::optional<SlotRef> Allocate(Level level, KeySpaceId space, uint64_t block_bytes);
  // Takes one given slot, which `slot_of_pool` names as that level's pool numbers it (InPool), with
  // the bytes that are there; nullopt when it cannot be had: as Pool::Take.
  std::optional<SlotRef> Take(Level level, KeySpaceId space, uint64_t block_bytes,
                              SlotRef slot_of_pool);
  // Until its bytes outlive the machine's next failure: as Pool::Sync.
  absl::Status Sync(Level level) { return at(level).Sync(); }
  // How many blocks of `space` Allocate would take, were nobody else to ask.
  uint64_t Room(Level level, KeySpaceId space, uint64_t block_bytes) const;
  SpaceUse Use(Level level, KeySpaceId space) const { return at(level).Use(space); }
  std::vector<uint32_t> ExtentsOf(Level level, KeySpaceId space) const;
  uint32_t extents(Level level) const { return at(level).extents(); }
  uint32_t ExtentsOpenTo(Level level, KeySpaceId space) const {
    return at(level).ExtentsOpenTo(space);
  }
  uint64_t capacity_bytes(Level level) const { return at(level).capacity_bytes(); }
  uint64_t used_bytes(Level level) const { return at(level).used_bytes(); }
  double pressure(Level level) const { return at(level).pressure(); }

  // ---- Of all levels
  uint32_t extents() const { return extents_; }
  // Of the level whose extents are largest.
  uint64_t extent_bytes_max() const;
  // Whether any level has memory for a block of that size at all.
  bool FitsAny(uint64_t block_bytes) const;

  // ---- Of one slot or extent: as Pool says
  // The slot as its own pool numbers it, whatever other pools there are.
  SlotRef InPool(SlotRef slot) const { return Find(slot).second; }
  void Free(SlotRef slot);
  void SetDraining(uint32_t extent, bool draining);
  bool Transferable(uint32_t extent) const;
  uint32_t used_slots(uint32_t extent) const;
  uint8_t* Address(SlotRef slot) const;
  // Of slots on any levels, one checksum each.
  absl::StatusOr<std::vector<Checksum128>> Checksums(std::span<const SlotRef> slots,
                                                     const BlockShape& shape) const;
  // Also from one level to another. INTERNAL when the device refuses.
  absl::Status Copy(SlotRef from, SlotRef to, uint64_t bytes);

  // Between host memory and slots in use that the CPU does not reach. INTERNAL when the device or
  // disk refuses, or nothing here has that address.
  absl::Status CopyToHost(std::span<const uint8_t> from, std::span<uint8_t> to);
  absl::Status CopyFromHost(std::span<const uint8_t> from, std::span<uint8_t> to);

  std::optional<ExtentPlace> Export(const uint8_t* address);
  absl::StatusOr<HbmHandle> Share(uint32_t extent, AttachmentId attachment);
  void Unshared(AttachmentId attachment);
  absl::Status CheckInvariants(const absl::flat_hash_set<SlotRef>& in_use) const;

 private:
  struct Part {
    std::unique_ptr<Pool> pool;
    uint32_t first_extent = 0;
  };
  Pool& at(Level level) const { return *pools_[level].pool; }
  // The pool of an extent, and the extent's number there.
  std::pair<Pool*, uint32_t> Find(uint32_t extent) const;
  std::pair<Pool*, SlotRef> Find(SlotRef slot) const;
  Pool* PoolBeyondCpu(const uint8_t* address) const;

  std::vector<Part> pools_;
  uint32_t extents_ = 0;
};

}  // namespace reprise::shard
