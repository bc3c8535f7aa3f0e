// What other amounts of memory would have kept: for every size of a cache that drops the least
// recently used block, how much of what was asked for it would have had.
//
// Each reference to a block is a hit in every cache that is larger than all blocks used since its
// last reference (Mattson et al., IBM Systems Journal 1970). Only blocks whose key falls into a
// sample are followed, and their distances are scaled up by what the sample leaves out; when more
// than kSizingSamplesMax are in it, it is made smaller (SHARDS, Waldspurger et al., FAST 2015).
// What only a cache beyond the horizon would still have is forgotten, or blocks that nobody asks
// for again would thin the sample for ever. As a shard uses a prompt's blocks from the last to
// the first, a prefix is never colder than what hangs from it, and what a size would have kept is
// prefixes.
//
// Distances are kept in 32 steps for each doubling: exact at their bounds (as all sizes up to 64
// blocks of a power of two of bytes are), a straight line between them. What the sample has of the
// tokens asked for differs from its due by luck, mostly of the few blocks that every prompt has:
// the difference is counted where those are, at the smallest distance (SHARDS-adj).
//
// Invariants: samples_max blocks are followed at most; all of the sample that a cache of the
// horizon's size would have, and no other.
// Thread safety: none; the caller holds the lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <queue>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "proto/types/limits.h"

namespace reprise::shard {

class ReuseCurve {
 public:
  static constexpr uint64_t kNoHorizon = std::numeric_limits<uint64_t>::max();

  // Tells of caches of up to `horizon_bytes`. `samples_max` blocks are followed at most. REQUIRES:
  // both at least 1.
  explicit ReuseCurve(uint64_t horizon_bytes, size_t samples_max = limits::kSizingSamplesMax);

  // A prompt asks for the block `key` (uniform over 64 bits), of `bytes` and `tokens`.
  void Ask(uint64_t key, uint64_t bytes, uint32_t tokens) {
    asked_tokens_ += tokens;
    if (const uint64_t hash = HashOf(key); hash <= sampled_) Count(hash, bytes, tokens);
  }
  // The block is stored, as recently used as if it had been asked for.
  void Keep(uint64_t key, uint64_t bytes) {
    if (const uint64_t hash = HashOf(key); hash <= sampled_) Follow(hash, bytes);
  }

  uint64_t asked_tokens() const { return asked_tokens_; }
  // Of asked_tokens, what a cache of `memory_bytes` would have had; UINT64_MAX: of any size up to
  // the horizon.
  // Never falls with memory_bytes, and is never more than asked_tokens.
  uint64_t HitTokens(uint64_t memory_bytes) const;

  size_t sampled_blocks() const { return followed_.size(); }

 private:
  struct Followed {
    size_t slot = 0;
    uint64_t bytes = 0;
  };

  // An odd factor: no two keys have one hash, and the high bits depend on all others.
  static uint64_t HashOf(uint64_t key) { return key * 0x9e3779b97f4a7c15; }

  void Count(uint64_t hash, uint64_t bytes, uint32_t tokens);
  void Follow(uint64_t hash, uint64_t bytes);
  void Forget(uint64_t hash);
  void ForgetLargest();
  void ForgetOldest();
  void Compact();
  void AddAt(size_t slot, uint64_t bytes);  // in the tree; negative ones as their complement
  uint64_t BytesUntil(size_t slot) const;   // of the followed blocks in slots before it
  double rate() const;                      // of all keys, the share that is sampled

  const uint64_t horizon_bytes_;
  const size_t samples_max_;
  uint64_t sampled_ = std::numeric_limits<uint64_t>::max();  // hashes up to it
  uint64_t asked_tokens_ = 0;
  double counted_tokens_ = 0;                         // of the sample, scaled up
  std::vector<double> hit_tokens_;                    // by step of distance; scaled up
  absl::flat_hash_map<uint64_t, Followed> followed_;  // by hash
  // Of what is followed, the largest first; some are stale.
  std::priority_queue<uint64_t> hashes_;
  // Slots are handed out in the order of use, one for each use of a followed block; the block has
  // the last one that it got.
  std::vector<uint64_t> used_;  // hash, by slot
  size_t oldest_ = 0;           // no block has a slot before it
  std::vector<uint64_t> tree_;  // Fenwick: bytes by slot, from slot 1
  uint64_t followed_bytes_ = 0;
};

}  // namespace reprise::shard
