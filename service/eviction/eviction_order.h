// The order in which blocks leave a shard: within a class of blocks that were used as often, the
// one used longest ago; of the classes', the one that is worth least.
//
// A block is judged within its group (a key space on a tier), against the group's other ends:
// blocks that may go as far as the caller can tell, for nothing of the group hangs from them and
// nobody has a right to them. The order owns none of the memory that it judges and knows nothing of
// prefixes or leases: the caller says which blocks are ends. Ranks compare groups.
//
// A block that somebody claims goes after all of its group that nobody does: by the claim's rank,
// then least recently used first.
//
// What a block is worth is learned, by ReuseModel, from the uses of stored blocks and of those
// evicted not long ago. On a published trace of chats (Mooncake, FAST 2025) this has 1.04 to 2
// times the hits of least-recently-used in a memory of up to a tenth of all blocks, and as many in
// a larger one: `./dev bench eviction`, with S3-FIFO and the optimum beside it.
//
// Thread safety: none; the caller holds the lock.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "proto/types/limits.h"
#include "service/eviction/ghosts.h"
#include "service/eviction/reuse_model.h"

namespace reprise::shard {

enum class Eviction : uint8_t {
  kLearned,
  kLru,  // least recently used first, whatever was learned
};

// Lower goes first; equal worth: the one used longer ago.
struct EvictionRank {
  uint8_t claim = 0;  // 0: nobody's
  double worth = 0;   // of what nobody claims
  uint64_t last_use = 0;
  friend std::partial_ordering operator<=>(const EvictionRank&, const EvictionRank&) = default;
};

class EvictionOrder {
 public:
  explicit EvictionOrder(Eviction kind) : kind_(kind) {}

  // Starts judging `block` as an end that was just used. `key` tells blocks apart over their ids'
  // reuse; two that share one are taken for the same. `copy`: of a block that is used elsewhere;
  // until it is used here it teaches nothing. REQUIRES: not tracked.
  void Track(uint32_t block, uint32_t group, uint64_t key, absl::Time now, bool copy = false);
  // So many uses were before the first one here. REQUIRES: nothing was tracked yet.
  void BeginAfter(uint64_t uses);
  // `block`, just tracked, was used last as use number `last_use`, of those. REQUIRES: tracked.
  void Backdate(uint32_t block, uint64_t last_use);
  // A reader used it. Uses within kReuseApart of another count as one: a request asks more than
  // once. A prompt's blocks are used from the last to the first. REQUIRES: tracked, as all below.
  void Use(uint32_t block, absl::Time now);
  // A writer passed it on its way to what hangs from it: as recent as if used, and no use.
  void Refresh(uint32_t block);
  // Whether it is up for eviction.
  void SetEnd(uint32_t block, bool end);
  // The rank of the strongest claim on it; 0: none.
  void SetClaim(uint32_t block, uint8_t rank);
  // It is in another group now, as old as it was.
  void Move(uint32_t block, uint32_t group);
  // Stops judging it: it left to make room, and is remembered for a while.
  void Evict(uint32_t block);
  // Stops judging it: it left for another reason.
  void Forget(uint32_t block);

  // Of the group's ends for which `eligible` says yes, the one to drop next; it stays tracked.
  // Those for which it says no are passed over each time: few may be.
  std::optional<uint32_t> Least(uint32_t group, absl::FunctionRef<bool(uint32_t)> eligible) const;
  // Of the group's ends the least; nullopt: it has none.
  std::optional<EvictionRank> LeastRank(uint32_t group) const;

  // When `block` was used or passed: lower is longer ago, over all groups.
  uint64_t last_use(uint32_t block) const { return nodes_[block].last_use; }
  bool tracks(uint32_t block) const { return block < nodes_.size() && nodes_[block].uses > 0; }
  bool is_end(uint32_t block) const { return nodes_[block].end; }
  uint8_t claim(uint32_t block) const { return nodes_[block].claim; }
  size_t tracked(uint32_t group) const;  // blocks, ends or not

 private:
  struct Node {
    uint64_t key = 0;
    uint64_t last_use = 0;
    absl::Time used_at;
    uint32_t uses = 0;  // 0: not tracked
    uint32_t group = 0;
    uint8_t claim = 0;
    bool end = false;
    bool copy = false;  // not used yet
  };
  // The place of an end among its like: by the rank of its claim, then by last use.
  using End = std::pair<uint64_t, uint32_t>;
  using Ends = absl::btree_set<End>;
  struct Group {
    // By how often they were used; the last ones are claimed.
    std::array<Ends, limits::kReuseClasses + 1> ends;
    size_t blocks = 0;
  };

  Ends& EndsOf(const Node& node);
  static End EndOf(const Node& node, uint32_t block);
  EvictionRank RankOf(uint32_t block) const;
  void Renew(uint32_t block, uint32_t uses);
  void Leave(uint32_t block);
  void Learn();

  const Eviction kind_;
  std::vector<Node> nodes_;  // by block
  absl::flat_hash_map<uint32_t, Group> groups_;
  ReuseModel model_;
  Ghosts ghosts_;
  size_t tracked_ = 0;
  uint64_t now_ = 0;  // blocks stored, used and passed
  uint64_t refit_at_ = 0;
};

}  // namespace reprise::shard
