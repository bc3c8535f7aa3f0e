// What a cache of some size would have served of a trace: an answer before the memory is bought.
//
// One pooled cache is modelled. A request finds the leading blocks of its prompt that are stored,
// uses them, and then all of its blocks are stored; nothing is leased, nothing expires, and no two
// requests overlap.
//
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>

#include "service/eviction/eviction_order.h"
#include "service/sizing/reuse_curve.h"
#include "service/sizing/trace.h"

namespace reprise::sizing {

// What a trace is, whatever the cache.
struct TraceTotals {
  uint64_t prompt_tokens = 0;
  uint64_t blocks = 0;           // in all prompts
  uint64_t distinct_blocks = 0;  // of them, each counted once
  uint64_t hit_tokens = 0;       // that a cache without a bound would serve
};
TraceTotals TotalsOf(const Trace& trace);

// Least recently used first, at every size, with every block followed. A prompt's blocks are asked
// for from the last to the first, its new ones too, before its first block is looked for: a size
// serves no more than such a cache would, and no less than one that is smaller by a prompt.
shard::ReuseCurve LruCurve(const Trace& trace, uint64_t block_bytes);

// Tokens that a shard of `blocks_max` blocks serves: it keeps and drops blocks as a shard does, by
// EvictionOrder. What a prompt has beyond blocks_max is not stored.
uint64_t ShardHitTokens(const Trace& trace, size_t blocks_max, shard::Eviction kind);

}  // namespace reprise::sizing
