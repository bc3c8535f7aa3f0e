// Where a stored block is: (key space, block key) -> block. Striped, so that looking a prefix up
// takes no lock that a writer holds for long, and compared in full, so that a hash collision is
// never a wrong read.
//
// Invariants: one entry per (key space, block key); a find never answers for another key.
// Thread safety: all methods may be called from any thread. A run length counted while blocks come
// and go is some mixture of before and after: it promises nothing.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/hash/hash.h"
#include "absl/synchronization/mutex.h"
#include "proto/types/block_key.h"
#include "proto/types/ids.h"
#include "proto/types/limits.h"

namespace reprise::shard {

// The store's own key. A key space is one (tenant, fingerprint).
struct SpaceKey {
  KeySpaceId space;
  BlockKey key;

  friend bool operator==(const SpaceKey&, const SpaceKey&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const SpaceKey& k) {
    return H::combine(std::move(h), k.space, k.key);
  }
};

// Seeded per process: whoever chooses keys cannot choose collisions.
struct SpaceKeyHash {
  size_t operator()(const SpaceKey& key) const { return absl::Hash<SpaceKey>()(key); }
};

// A hash of 16 bits, for the test build that must collide thousands of times and never answer
// wrong.
struct TruncatedSpaceKeyHash {
  size_t operator()(const SpaceKey& key) const { return absl::Hash<SpaceKey>()(key) & 0xffff; }
};

struct IndexEntry {
  uint32_t block = 0;
  Tier tier = Tier::kDram;

  friend bool operator==(const IndexEntry&, const IndexEntry&) = default;
};

template <typename Hash>
class BasicBlockIndex {
 public:
  // False, and nothing changes, when the key is there already.
  bool Insert(const SpaceKey& key, IndexEntry entry) {
    const size_t hash = Hash()(key);
    Stripe& stripe = StripeOf(hash);
    absl::MutexLock lock(&stripe.mu);
    return stripe.map.emplace(key, entry).second;
  }

  // The key's entry from now on. False, and nothing changes, when the key is not there.
  bool Replace(const SpaceKey& key, IndexEntry entry) {
    const size_t hash = Hash()(key);
    Stripe& stripe = StripeOf(hash);
    absl::MutexLock lock(&stripe.mu);
    const auto it = stripe.map.find(key, hash);
    if (it == stripe.map.end()) return false;
    it->second = entry;
    return true;
  }

  bool Erase(const SpaceKey& key) {
    Stripe& stripe = StripeOf(Hash()(key));
    absl::MutexLock lock(&stripe.mu);
    return stripe.map.erase(key) > 0;
  }

  std::optional<IndexEntry> Find(const SpaceKey& key) const {
    const size_t hash = Hash()(key);
    const Stripe& stripe = StripeOf(hash);
    absl::ReaderMutexLock lock(&stripe.mu);
    const auto it = stripe.map.find(key, hash);
    if (it == stripe.map.end()) return std::nullopt;
    return it->second;
  }

  // How many of `keys`, a chain from its first block on, are stored. What is stored is a forest of
  // prefixes, so this gallops: about 2 log2(run) finds.
  uint32_t RunLength(KeySpaceId space, std::span<const BlockKey> keys) const {
    const auto stored = [&](size_t i) { return Find(SpaceKey{space, keys[i]}).has_value(); };
    if (keys.empty() || !stored(0)) return 0;
    size_t low = 0;             // stored
    size_t high = keys.size();  // not stored, or the end
    for (size_t step = 1; low + step < high; step *= 2) {
      if (!stored(low + step)) {
        high = low + step;
        break;
      }
      low += step;
    }
    while (high - low > 1) {
      const size_t middle = low + (high - low) / 2;
      (stored(middle) ? low : high) = middle;
    }
    return static_cast<uint32_t>(low + 1);
  }

  size_t size() const {
    size_t total = 0;
    for (const Stripe& stripe : stripes_) {
      absl::ReaderMutexLock lock(&stripe.mu);
      total += stripe.map.size();
    }
    return total;
  }

 private:
  struct alignas(64) Stripe {
    mutable absl::Mutex mu;
    absl::flat_hash_map<SpaceKey, IndexEntry, Hash> map ABSL_GUARDED_BY(mu);
  };

  // The map uses the low bits of the hash; the stripe comes from a mixture of all of them.
  static size_t StripeNumber(size_t hash) {
    constexpr uint64_t kGolden = 0x9e3779b97f4a7c15;
    return static_cast<size_t>((uint64_t{hash} * kGolden) >> 32) % limits::kIndexStripes;
  }
  Stripe& StripeOf(size_t hash) { return stripes_[StripeNumber(hash)]; }
  const Stripe& StripeOf(size_t hash) const { return stripes_[StripeNumber(hash)]; }

  std::array<Stripe, limits::kIndexStripes> stripes_;
};

#ifdef REPRISE_TRUNCATED_INDEX_HASH
using BlockIndex = BasicBlockIndex<TruncatedSpaceKeyHash>;
#else
using BlockIndex = BasicBlockIndex<SpaceKeyHash>;
#endif

}  // namespace reprise::shard
