// Blocks that were found on a kept disk and nobody can have yet: what they hang from is not stored,
// or their bytes are still to be checked. They come all at once, those that were used last first,
// and leave one by one.
//
// Thread safety: none; the engine holds its lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "proto/types/block_key.h"
#include "proto/types/ids.h"
#include "service/index/block_index.h"
#include "service/shard/block_table.h"

namespace reprise::shard {

class WaitingBlocks {
 public:
  struct Arrival {
    BlockId block = kNoBlock;
    SpaceKey key;
    std::optional<BlockKey> parent;  // nullopt: a chain's first block
    uint64_t age = 0;                // higher: used longer ago
    bool proved = false;             // its bytes are what they should be
  };
  // REQUIRES: nothing left so far; none of that key waits; older ones come later.
  void Add(const Arrival& arrival);
  // REQUIRES, as all below: it waits.
  void Erase(BlockId block);
  void Prove(BlockId block) { nodes_.at(block).proved = true; }

  bool proved(BlockId block) const { return nodes_.at(block).proved; }
  const std::optional<BlockKey>& ParentOf(BlockId block) const { return nodes_.at(block).parent; }
  uint64_t age(BlockId block) const { return nodes_.at(block).age; }

  bool Contains(BlockId block) const { return nodes_.contains(block); }
  bool empty() const { return nodes_.empty(); }
  size_t size() const { return nodes_.size(); }
  std::optional<BlockId> Find(const SpaceKey& key) const;
  // What hangs from `parent`.
  std::vector<BlockId> Below(const SpaceKey& parent) const;
  // Of a key space, the one that was used longest ago.
  std::optional<BlockId> Coldest(KeySpaceId space);

 private:
  struct Node {
    SpaceKey key;
    std::optional<BlockKey> parent;
    uint64_t age = 0;
    bool proved = false;
    // Among those that hang from the same.
    BlockId previous = kNoBlock;
    BlockId next = kNoBlock;
  };

  absl::flat_hash_map<BlockId, Node> nodes_;
  absl::flat_hash_map<SpaceKey, BlockId> by_key_;
  absl::flat_hash_map<SpaceKey, BlockId> first_below_;
  // The coldest is last. Some may have left.
  absl::flat_hash_map<KeySpaceId, std::vector<BlockId>> by_space_;
};

}  // namespace reprise::shard
