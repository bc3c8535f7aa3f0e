// Blocks that were found on a kept disk and hang from what is not stored: nobody can have them
// until that is stored again. They come all at once, those that were used last first, and leave one
// by one.
//
// Thread safety: none; the engine holds its lock.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "proto/types/ids.h"
#include "service/index/block_index.h"
#include "service/shard/block_table.h"

namespace reprise::shard {

class WaitingBlocks {
 public:
  // It waits for `parent`. REQUIRES: nothing left so far.
  void Add(BlockId block, const SpaceKey& parent);
  // REQUIRES: it waits.
  void Erase(BlockId block);
  // What waits for `parent`, and does not any more.
  std::vector<BlockId> Take(const SpaceKey& parent);

  bool Contains(BlockId block) const { return parents_.contains(block); }
  bool empty() const { return parents_.empty(); }
  size_t size() const { return parents_.size(); }

  // REQUIRES: it waits.
  const BlockKey& ParentOf(BlockId block) const { return parents_.at(block).key; }
  // Of a key space, the one that was used longest ago.
  std::optional<BlockId> Coldest(KeySpaceId space);

 private:
  absl::flat_hash_map<BlockId, SpaceKey> parents_;
  absl::flat_hash_map<SpaceKey, std::vector<BlockId>> by_parent_;
  // The coldest is last. Some may have left.
  absl::flat_hash_map<KeySpaceId, std::vector<BlockId>> by_space_;
};

}  // namespace reprise::shard
