// Claims: who wants which prefix kept, how badly, and until when.
//
// One claim rests on one block, the last of its prefix that is stored, and so keeps all of it: what
// is stored is a forest, and nothing leaves it but its ends. What of the prefix is not stored yet
// lies ahead; a claim moves on as that is stored, and back when its block leaves. The table knows
// no blocks but by their ids, and no memory: the engine moves claims and counts what they hold.
//
// Invariants: no two claims of a key space share a name; a claim waits for the first key of what
// lies ahead of it, and for no other; an owner's tally counts its claims and what lies ahead of
// them.
//
// Thread safety: none; the engine holds its lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/node_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "proto/types/block_key.h"
#include "proto/types/ids.h"
#include "service/index/block_index.h"
#include "service/shard/block_table.h"
#include "service/shard/key_space.h"

namespace reprise::shard {

using ClaimId = StrongId<struct ClaimIdTag, uint64_t>;

// A Retain's rank is its priority.
inline constexpr uint8_t kPinRank = UINT8_MAX;

struct Claim {
  KeySpaceId space;
  std::shared_ptr<TenantTally> owner;
  std::string name;
  uint8_t rank = 0;
  absl::Time ends;
  BlockId rests = kNoBlock;     // kNoBlock: nothing of its prefix is stored
  std::vector<BlockKey> ahead;  // not stored yet; the next one is the last
};

class ClaimTable {
 public:
  // REQUIRES: none of that name in its key space, and it rests nowhere.
  ClaimId Add(Claim claim);
  // REQUIRES: it rests nowhere.
  void Erase(ClaimId id);

  const Claim& operator[](ClaimId id) const { return claims_.at(id); }
  std::optional<ClaimId> Find(KeySpaceId space, absl::string_view name) const;
  std::optional<ClaimId> Overdue(absl::Time now) const;
  std::vector<ClaimId> Of(KeySpaceId space) const;
  std::vector<ClaimId> All() const;
  size_t size() const { return claims_.size(); }
  size_t keys_ahead() const { return keys_ahead_; }

  // It rests on `block` from now on; kNoBlock: nowhere.
  void Rest(ClaimId id, BlockId block);
  std::vector<ClaimId> RestingOn(BlockId block) const;  // the weakest first
  uint8_t StrongestOn(BlockId block) const;             // rank; 0: no claim rests there

  std::vector<ClaimId> WaitingFor(const SpaceKey& key) const;
  // What it waited for is stored: it waits for the next one.
  void PassNext(ClaimId id);
  // It waits for `key` again, and then for what it waited for before.
  void PutAhead(ClaimId id, const BlockKey& key);
  void ForgetAhead(ClaimId id);

 private:
  using Name = std::pair<KeySpaceId, std::string>;
  using Ranked = absl::btree_set<std::pair<uint8_t, ClaimId>>;
  void CountAhead(Claim& claim, ptrdiff_t keys);
  void Wait(ClaimId id, const Claim& claim);
  void StopWaiting(ClaimId id, const Claim& claim);

  uint64_t next_id_ = 1;
  size_t keys_ahead_ = 0;
  absl::node_hash_map<ClaimId, Claim> claims_;
  absl::flat_hash_map<Name, ClaimId> by_name_;
  absl::flat_hash_map<BlockId, Ranked> resting_;
  absl::flat_hash_map<SpaceKey, Ranked> waiting_;
  absl::btree_set<std::pair<absl::Time, ClaimId>> by_end_;
};

}  // namespace reprise::shard
