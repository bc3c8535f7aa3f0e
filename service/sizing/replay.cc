#include "service/sizing/replay.h"

#include <algorithm>
#include <limits>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"

namespace reprise::sizing {
namespace {

using shard::Eviction;
using shard::EvictionOrder;

constexpr uint32_t kGroup = 0;  // one key space on one tier
constexpr uint32_t kNoBlock = std::numeric_limits<uint32_t>::max();

// The blocks of a shard without their bytes. Invariant: a block's parent is stored, and an end is
// what no stored block hangs from.
class ModelShard {
 public:
  ModelShard(size_t blocks_max, Eviction kind) : blocks_max_(blocks_max), order_(kind) {}

  // Serves a prompt and stores it; how many of its leading blocks were found.
  size_t Serve(std::span<const uint64_t> keys, absl::Time now) {
    ++request_;
    std::vector<uint32_t> run;
    for (uint64_t key : keys) {
      const auto it = at_.find(key);
      if (it == at_.end()) break;
      run.push_back(it->second);
      blocks_[it->second].request = request_;  // it has a lease
    }
    for (size_t i = run.size(); i-- > 0;) order_.Use(run[i], now);
    uint32_t last = run.empty() ? kNoBlock : run.back();
    bool stored = false;
    for (const uint64_t key : keys.subspan(run.size())) {
      if (!MakeRoom()) break;
      last = Store(key, last, now);
      stored = true;
    }
    // What is committed makes the chain that it hangs from as recent.
    for (uint32_t block = stored ? last : kNoBlock; block != kNoBlock;
         block = blocks_[block].parent)
      order_.Refresh(block);
    return run.size();
  }

 private:
  struct Block {
    uint64_t key = 0;
    uint64_t request = 0;  // the last one that used it
    uint32_t parent = kNoBlock;
    uint32_t children = 0;
  };

  // False when what is stored is in use.
  bool MakeRoom() {
    while (at_.size() >= blocks_max_) {
      const std::optional<uint32_t> least = order_.Least(
          kGroup, [this](uint32_t block) { return blocks_[block].request != request_; });
      if (!least.has_value()) return false;
      Drop(*least);
    }
    return true;
  }

  uint32_t Store(uint64_t key, uint32_t parent, absl::Time now) {
    if (free_.empty()) {
      free_.push_back(static_cast<uint32_t>(blocks_.size()));
      blocks_.emplace_back();
    }
    const uint32_t block = free_.back();
    free_.pop_back();
    blocks_[block] = {.key = key, .request = request_, .parent = parent, .children = 0};
    at_.emplace(key, block);
    order_.Track(block, kGroup, key, now);
    if (parent != kNoBlock && blocks_[parent].children++ == 0) order_.SetEnd(parent, false);
    return block;
  }

  void Drop(uint32_t block) {
    order_.Evict(block);
    at_.erase(blocks_[block].key);
    free_.push_back(block);
    const uint32_t parent = blocks_[block].parent;
    if (parent != kNoBlock && --blocks_[parent].children == 0) order_.SetEnd(parent, true);
  }

  const size_t blocks_max_;
  EvictionOrder order_;
  absl::flat_hash_map<uint64_t, uint32_t> at_;  // by key
  std::vector<Block> blocks_;
  std::vector<uint32_t> free_;
  uint64_t request_ = 0;
};

}  // namespace

TraceTotals TotalsOf(const Trace& trace) {
  TraceTotals totals;
  absl::flat_hash_set<uint64_t> seen;
  for (const Request& request : trace.requests) {
    const auto fresh = std::find_if_not(request.blocks.begin(), request.blocks.end(),
                                        [&](uint64_t key) { return seen.contains(key); });
    totals.hit_tokens += static_cast<uint64_t>(fresh - request.blocks.begin()) * trace.block_tokens;
    totals.prompt_tokens += request.prompt_tokens;
    totals.blocks += request.blocks.size();
    seen.insert(fresh, request.blocks.end());
  }
  totals.distinct_blocks = seen.size();
  return totals;
}

shard::ReuseCurve LruCurve(const Trace& trace, uint64_t block_bytes) {
  shard::ReuseCurve curve(shard::ReuseCurve::kNoHorizon, std::numeric_limits<size_t>::max());
  for (const Request& request : trace.requests) {
    for (size_t i = request.blocks.size(); i-- > 0;)
      curve.Ask(request.blocks[i], block_bytes, trace.block_tokens);
  }
  return curve;
}

uint64_t ShardHitTokens(const Trace& trace, size_t blocks_max, Eviction kind) {
  ModelShard shard(blocks_max, kind);
  uint64_t blocks = 0;
  for (const Request& request : trace.requests)
    blocks += shard.Serve(request.blocks, absl::UnixEpoch() + request.at);
  return blocks * trace.block_tokens;
}

}  // namespace reprise::sizing
