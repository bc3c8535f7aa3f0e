// Which feeds hold which blocks. A feed (stream) is one shard's flow of events since it last
// started over; what a stream holds is dropped by retiring the stream, which takes effect at once
// and is cleaned up bit by bit.
//
// Invariants: a retired stream is in no answer; at most `blocks_max` blocks are kept, further ones
// are counted and left out (a hint that is missing costs a recompute, memory without a bound costs
// the process).
//
// Thread safety: none for writers; const methods may run beside each other.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "proto/types/block_key.h"
#include "proto/types/ids.h"
#include "proto/types/limits.h"
#include "service/router/holder_sets.h"

namespace reprise::router {

// Whose blocks and of which spec: keys of different spaces never meet.
struct KeySpace {
  Tenant tenant;
  Fingerprint fingerprint;
  friend bool operator==(const KeySpace&, const KeySpace&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const KeySpace& space) {
    return H::combine(std::move(h), space.tenant, space.fingerprint);
  }
};

struct StreamRun {
  StreamIndex stream = 0;
  uint32_t blocks = 0;
  Tier tier = Tier::kHbm;  // slowest tier seen on the way
};

class BlockIndex {
 public:
  explicit BlockIndex(size_t blocks_max = limits::kRouterIndexBlocksMax)
      : blocks_max_(blocks_max) {}

  StreamIndex OpenStream();
  void RetireStream(StreamIndex stream);

  void Store(StreamIndex stream, const KeySpace& space, std::span<const BlockKey> keys, Tier tier);
  void Remove(StreamIndex stream, const KeySpace& space, std::span<const BlockKey> keys);

  // The run of each living stream that holds keys[0], in no particular order. What a stream holds
  // is a forest (a shard keeps no block without its parent), so a run's end is found by galloping
  // and bisection: O(log n) looks per distinct run length.
  std::vector<StreamRun> Runs(const KeySpace& space, std::span<const BlockKey> keys) const;

  // Cleans up after retired streams in one of kRouterIndexStripes parts. False when there is
  // nothing to clean.
  bool SweepSome();

  uint64_t stream_blocks(StreamIndex stream) const { return streams_[stream].blocks; }
  size_t blocks() const { return blocks_; }
  size_t key_spaces() const { return spaces_.size(); }
  uint64_t blocks_left_out() const { return blocks_left_out_; }

 private:
  struct IndexKey {
    BlockKey key;
    uint32_t space = 0;
    friend bool operator==(const IndexKey&, const IndexKey&) = default;
    template <typename H>
    friend H AbslHashValue(H h, const IndexKey& k) {
      return H::combine(std::move(h), k.key, k.space);
    }
  };
  using Stripe = absl::flat_hash_map<IndexKey, SetId>;
  struct SpaceUse {
    uint32_t id = 0;
    size_t blocks = 0;
  };
  struct Stream {
    bool open = false;
    bool retired = false;
    size_t stripes_swept = 0;  // since it was retired
    uint64_t blocks = 0;
  };
  struct Search;

  static size_t StripeOf(const BlockKey& key) {
    return key.bytes[kDigestBytes - 1] % limits::kRouterIndexStripes;
  }
  SetId At(uint32_t space, const BlockKey& key) const;
  SpaceUse& SpaceFor(const KeySpace& space);
  void DropBlocks(uint32_t space, size_t blocks);
  void DropSpaceIfEmpty(absl::flat_hash_map<KeySpace, SpaceUse>::iterator space);
  SetId WithoutRetired(SetId set);

  const size_t blocks_max_;
  size_t blocks_ = 0;
  uint64_t blocks_left_out_ = 0;
  HolderSets sets_;
  std::array<Stripe, limits::kRouterIndexStripes> stripes_;
  absl::flat_hash_map<KeySpace, SpaceUse> spaces_;
  absl::flat_hash_map<uint32_t, KeySpace> space_names_;
  uint32_t last_space_ = 0;
  std::vector<Stream> streams_;
  size_t retired_ = 0;
  size_t sweep_next_ = 0;
};

}  // namespace reprise::router
