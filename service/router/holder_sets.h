// Who holds a block, as a number: interned sets of holders. Most blocks of a fleet share a few
// hundred sets (owner and replica), so that a block costs four bytes here however large the fleet
// is, and two sets are equal when their numbers are.
//
// A holder is one feed's copy of a block on one tier. A shard has one feed at a time, and two while
// it resyncs.
//
// Invariants: set 0 is the empty set; a stream occurs at most once in a set; a set that a block
// refers to is not collected.
//
// Thread safety: none; the index that owns it serialises.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "proto/types/ids.h"

namespace reprise::router {

using StreamIndex = uint16_t;
using SetId = uint32_t;

struct Holder {
  StreamIndex stream = 0;
  Tier tier = Tier::kDram;
  friend bool operator==(const Holder&, const Holder&) = default;
  friend auto operator<=>(const Holder&, const Holder&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const Holder& holder) {
    return H::combine(std::move(h), holder.stream, static_cast<uint8_t>(holder.tier));
  }
};

class HolderSets {
 public:
  HolderSets();

  // Both move one block's reference from `set` to the answer. With: the stream's other tiers are
  // replaced.
  SetId With(SetId set, Holder holder);
  SetId Without(SetId set, StreamIndex stream);

  bool Contains(SetId set, StreamIndex stream) const;
  // Sorted by stream. Valid until the next With or Without.
  std::span<const Holder> Members(SetId set) const {
    return {records_[set].members.data(), records_[set].members.size()};
  }
  size_t size() const { return records_.size() - free_.size(); }

 private:
  using Members_ = absl::InlinedVector<Holder, 4>;
  struct Record {
    Members_ members;
    uint64_t blocks = 0;  // that refer to it
  };
  // The last change made: chains arrive whole, so the next one is mostly the same.
  struct Memo {
    bool with = false;
    SetId from = 0;
    Holder holder;
    SetId to = 0;
    bool valid = false;
  };

  SetId Change(bool with, SetId set, Holder holder);
  SetId Intern(Members_ members);
  void CollectUnused();

  std::vector<Record> records_;
  std::vector<SetId> free_;
  absl::flat_hash_map<Members_, SetId> by_members_;
  size_t collect_at_;
  Memo memo_;
};

}  // namespace reprise::router
