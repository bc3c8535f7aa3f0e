// A cache of block keys that drops the least recently used, as a shard does: a prompt is touched
// from its last block to its first, so that chains leave from their ends.
//
// Thread safety: none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace reprise::bench {

class LruCache {
 public:
  explicit LruCache(size_t blocks_max) : blocks_max_(blocks_max) {}

  // The stored prefix of `blocks`.
  size_t Run(std::span<const uint64_t> blocks) const {
    size_t run = 0;
    while (run < blocks.size() && at_.contains(blocks[run])) ++run;
    return run;
  }

  // Stores and touches all of them; what was dropped for them, in that order.
  std::vector<uint64_t> Store(std::span<const uint64_t> blocks) {
    for (size_t i = blocks.size(); i-- > 0;) {
      const auto [it, fresh] = at_.try_emplace(blocks[i]);
      if (fresh) {
        it->second = order_.insert(order_.begin(), blocks[i]);
      } else {
        order_.splice(order_.begin(), order_, it->second);
      }
    }
    std::vector<uint64_t> dropped;
    while (order_.size() > blocks_max_) {
      dropped.push_back(order_.back());
      at_.erase(order_.back());
      order_.pop_back();
    }
    return dropped;
  }

 private:
  const size_t blocks_max_;
  std::list<uint64_t> order_;  // newest first
  absl::flat_hash_map<uint64_t, std::list<uint64_t>::iterator> at_;
};

}  // namespace reprise::bench
