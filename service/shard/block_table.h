// The records of all blocks that hold a slot, and the forest that they form. Ids are dense and used
// again; a generation tells one use of an id from the next.
//
// Invariants:
//   - a committed block's parent is committed, or it is a root of its key space;
//   - children are linked both ways; only committed blocks are in the forest.
// Thread safety: none; the engine holds its lock.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "proto/types/block_key.h"
#include "proto/types/checksum128.h"
#include "proto/types/ids.h"
#include "service/pool/slot_allocator.h"

namespace reprise::shard {

using BlockId = uint32_t;
inline constexpr BlockId kNoBlock = UINT32_MAX;

enum class BlockState : uint8_t {
  kFree,
  kReserved,     // granted to a writer, invisible
  kCommitted,    // stored, in the index and in the forest
  kHidden,       // no longer stored, its slot still being read or written
  kQuarantined,  // no longer stored, its slot held back
  kWaiting,      // found on a kept disk, not checked or without its parent yet: invisible
};

// What the blocks granted by one Reserve share.
struct ChainInfo {
  std::string session_id;
  std::vector<uint32_t> token_ids;  // from block `first_block` on; empty: unknown
  uint32_t first_block = 0;
};

struct BlockRecord {
  BlockKey key;
  Checksum128 checksum;
  KeySpaceId space;
  SlotRef slot;
  BlockState state = BlockState::kFree;
  bool sealed = false;  // being committed: not opened for writing any more
  uint32_t generation = 0;
  uint32_t depth = 0;           // number in its chain; 0: a chain's first block
  uint32_t token_position = 0;  // of its first token
  uint32_t leases = 0;
  uint32_t pins = 0;
  uint64_t written_bytes = 0;  // from offset 0 without a gap
  BlockId parent = kNoBlock;
  uint32_t parent_generation = 0;  // reserved blocks: the parent may be gone by now
  BlockId first_child = kNoBlock;
  BlockId next_sibling = kNoBlock;
  BlockId previous_sibling = kNoBlock;
  uint32_t children = 0;       // committed
  uint32_t near_children = 0;  // of them on its tier, and not on their way to another
  bool near = false;           // it is counted by its parent as that
  uint32_t reserved_children = 0;
  uint32_t claims = 0;      // that rest here, and children with any
  uint32_t claim_pins = 0;  // of the claims that are pins the same
  std::shared_ptr<const ChainInfo> chain;
};

class BlockTable {
 public:
  // A fresh record, kFree still.
  BlockId Add();
  // Gives the id back.
  void Drop(BlockId id);

  BlockRecord& operator[](BlockId id) { return records_[id]; }
  const BlockRecord& operator[](BlockId id) const { return records_[id]; }
  BlockId size() const { return static_cast<BlockId>(records_.size()); }

  // Hangs a committed block below its parent, or into `roots` (the first root of its key space).
  void Link(BlockId id, BlockId& roots);
  // REQUIRES: no children.
  void Unlink(BlockId id, BlockId& roots);

  // The record that a reserved block hangs from is still the one that it was reserved under.
  bool ParentStands(const BlockRecord& reserved) const {
    return reserved.parent == kNoBlock ||
           records_[reserved.parent].generation == reserved.parent_generation;
  }

  // The block after `id` in preorder of the forest below `top` (kNoBlock when done). Skips what is
  // below `id` when `skip_below`.
  BlockId NextBelow(BlockId top, BlockId id, bool skip_below) const;
  // The deepest first descendant of `id`: where a walk that visits children before parents begins.
  BlockId FirstLeafBelow(BlockId id) const;

 private:
  std::deque<BlockRecord> records_;
  std::vector<BlockId> unused_;
};

}  // namespace reprise::shard
