// What a journal's batches come to, one after another.
//
// Invariants: superseded blocks take no more room than those that count.
// Thread safety: none.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "service/journal/kept_records.h"
#include "service/journal/record_codec.h"

namespace reprise::shard {

class KeptFold {
 public:
  void Add(DecodedBatch decoded);
  // Once, at the end. What names a space that nobody told of is skipped; so is all that names a
  // number that two spaces were given, since whose it is is not known.
  KeptContents Take();

 private:
  void Add(KeptSpace space);
  void Add(KeptBlock block);
  bool Known(uint32_t space) const { return numbers_.contains(space); }
  void DropSuperseded();

  KeptContents contents_;
  absl::flat_hash_map<uint32_t, size_t> numbers_;  // place in contents_.spaces
  absl::flat_hash_set<uint32_t> disputed_;         // of those numbers
  absl::flat_hash_map<SlotRef, size_t> last_;      // place in contents_.blocks
};

}  // namespace reprise::shard
