// Which slot is whose: the accounting of a pool, without its memory. A pool is cut into extents of
// one size. An extent with any slot in use belongs to one key space and is cut into slots of that
// key space's size; an empty one belongs to nobody. Finding, taking and giving back a slot is O(1)
// and allocates nothing, except when an extent changes hands. So is taking a given one.
//
// Invariants: a slot is free or in use, never both; an extent with no slot in use is unowned; no
// two key spaces share an extent. Thread safety: none; the pool holds the lock.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "proto/types/ids.h"

namespace reprise::shard {

// One slot of a pool.
struct SlotRef {
  uint32_t extent = 0;
  uint32_t index = 0;

  friend bool operator==(const SlotRef&, const SlotRef&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const SlotRef& slot) {
    return H::combine(std::move(h), slot.extent, slot.index);
  }
};

// Nobody's key space: the previous owner of extents whose bytes are of a time that these books do
// not know.
inline constexpr KeySpaceId kEarlierProcess(UINT32_MAX);

// What a key space has of a pool. Draining extents count in `extents` and `used_slots` alone.
struct SpaceUse {
  uint32_t extents = 0;
  uint32_t slots_per_extent = 0;
  uint64_t used_slots = 0;
  uint64_t free_slots = 0;
};

class SlotAllocator {
 public:
  struct Grant {
    SlotRef slot;
    bool opened_extent = false;  // the extent was unowned until now
    KeySpaceId previous_owner;   // of an extent just opened; none: never used
  };

  // `previous_owner`: of all extents; none: never used. REQUIRES: extents > 0, extent_bytes > 0.
  SlotAllocator(uint32_t extents, uint64_t extent_bytes, KeySpaceId previous_owner = KeySpaceId());

  // Bytes of the slot that holds a block of `block_bytes`.
  static uint64_t SlotBytes(uint64_t block_bytes);

  // A slot for a block of `space`; nullopt when its extents are full and no extent is unowned.
  // REQUIRES: one block size per key space, and SlotBytes(block_bytes) <= extent_bytes.
  std::optional<Grant> Allocate(KeySpaceId space, uint64_t block_bytes);

  // Takes one given slot for a block of `space`, as if Allocate had given it, and opens its extent
  // if that is unowned. False, and nothing taken, when there is no such slot or extent, it is in
  // use, its extent belongs or last belonged to another key space than `space` or kEarlierProcess,
  // or blocks of `space` have another size. REQUIRES: `space` is not kEarlierProcess.
  bool Take(KeySpaceId space, uint64_t block_bytes, SlotRef slot);

  // REQUIRES: `slot` is in use.
  void Free(SlotRef slot);

  // Takes back a grant that opened an extent, as if it had never been made: the extent keeps its
  // previous owner, whose bytes are still in it, and is the last to be opened again.
  // REQUIRES: grant.opened_extent, and nothing else was granted of that extent.
  void Undo(const Grant& grant);

  // A draining extent gives out no more slots. It stops draining when it is empty or when told so.
  void SetDraining(uint32_t extent, bool draining);

  uint64_t slot_bytes(uint32_t extent) const { return extents_[extent].slot_bytes; }
  KeySpaceId owner(uint32_t extent) const { return extents_[extent].owner; }
  uint32_t used_slots(uint32_t extent) const { return extents_[extent].used; }
  uint32_t slots_in(uint32_t extent) const { return extents_[extent].slots; }
  bool in_use(SlotRef slot) const;

  SpaceUse Use(KeySpaceId space) const;
  std::vector<uint32_t> ExtentsOf(KeySpaceId space) const;

  uint32_t extents() const { return static_cast<uint32_t>(extents_.size()); }
  uint64_t extent_bytes() const { return extent_bytes_; }
  uint32_t unowned_extents() const { return static_cast<uint32_t>(unowned_.size()); }
  const std::vector<uint32_t>& unowned() const { return unowned_; }
  // Of an unowned extent; none: never used.
  KeySpaceId previous_owner(uint32_t extent) const { return extents_[extent].previous_owner; }
  // Bytes of the slots in use.
  uint64_t used_bytes() const { return used_bytes_; }
  // The same with every slot's share of what does not fit its extent: equals the capacity when
  // nothing is free.
  uint64_t charged_bytes() const { return charged_bytes_; }

  // INTERNAL naming the first thing that a recount finds wrong.
  absl::Status CheckInvariants() const;

 private:
  static constexpr uint32_t kNowhere = UINT32_MAX;

  struct Extent {
    KeySpaceId owner;
    KeySpaceId previous_owner;
    uint64_t slot_bytes = 0;
    uint32_t slots = 0;
    uint32_t used = 0;
    bool draining = false;
    uint32_t unowned_at = kNowhere;  // position in `unowned_`
    uint32_t owned_at = kNowhere;    // position in its owner's `owned`
    uint32_t roomy_at = kNowhere;    // position in its owner's `roomy`
    std::vector<uint32_t> free;      // a stack
    std::vector<uint32_t> free_at;   // per slot: position in `free`; kNowhere: in use
  };
  struct Space {
    std::vector<uint32_t> owned;
    std::vector<uint32_t> roomy;  // those with a free slot that do not drain
    uint64_t used_slots = 0;
  };

  bool MayTake(KeySpaceId space, uint64_t slot_bytes, SlotRef slot) const;
  void Open(uint32_t extent, KeySpaceId space, uint64_t slot_bytes);
  void Close(uint32_t extent);
  // Of an open extent; `slot` is free.
  void MarkUsed(SlotRef slot);
  void AddRoomy(uint32_t extent);
  void RemoveRoomy(uint32_t extent);
  uint64_t Charge(const Extent& extent) const { return extent_bytes_ / extent.slots; }
  absl::Status CheckExtent(uint32_t extent) const;

  const uint64_t extent_bytes_;
  std::vector<Extent> extents_;
  std::vector<uint32_t> unowned_;  // a stack
  absl::flat_hash_map<KeySpaceId, Space> spaces_;
  uint64_t used_bytes_ = 0;
  uint64_t charged_bytes_ = 0;
};

}  // namespace reprise::shard
