// What a disk's journal says: whose blocks lie where. Values; slots are those of the file pool.
//
// Thread safety: values; no shared state.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "proto/types/block_key.h"
#include "proto/types/cache_spec.h"
#include "proto/types/checksum128.h"
#include "proto/types/ids.h"
#include "service/pool/pool.h"
#include "service/pool/slot_allocator.h"

namespace reprise::shard {

struct KeptSpace {
  uint32_t number = 0;  // by which the journal's blocks and claims name it, and no other space
  Tenant tenant;
  Fingerprint fingerprint;  // of `spec`, as who wrote it made it
  CacheSpec spec;
  BlockShape shape;  // of its blocks as they lie
  friend bool operator==(const KeptSpace& a, const KeptSpace& b) {
    return a.number == b.number && a.tenant == b.tenant && a.fingerprint == b.fingerprint &&
           a.spec == b.spec && a.shape.block_bytes == b.shape.block_bytes &&
           a.shape.section_bytes == b.shape.section_bytes;
  }
};

struct KeptBlock {
  uint32_t space = 0;
  SlotRef slot;
  BlockKey key;
  std::optional<BlockKey> parent;  // nullopt: a chain's first block
  Checksum128 checksum;
  uint32_t depth = 0;  // number in its chain
  uint32_t token_position = 0;
  std::string session_id;
  std::vector<uint32_t> token_ids;  // empty: unknown
  friend bool operator==(const KeptBlock&, const KeptBlock&) = default;
};

struct KeptClaim {
  uint32_t space = 0;
  std::string name;
  uint8_t rank = 0;
  absl::Time ends;                // by the wall clock, to the millisecond
  std::optional<BlockKey> rests;  // nullopt: nothing of its prefix was stored
  std::vector<BlockKey> ahead;    // not stored yet; the next one is the last
  friend bool operator==(const KeptClaim&, const KeptClaim&) = default;
};

// What is written at once, in the order of the fields. Of what is said of one slot the last counts:
// one that is both in `blocks` and in `gone` is gone.
struct KeptBatch {
  std::vector<KeptSpace> spaces;
  std::vector<KeptBlock> blocks;
  std::vector<SlotRef> gone;      // no block is there any more
  std::vector<KeptClaim> claims;  // in addition to those before
  bool closed = false;            // whoever wrote it was done, and every byte is on the disk
  friend bool operator==(const KeptBatch&, const KeptBatch&) = default;
};

// What all batches come to.
struct KeptContents {
  std::vector<KeptSpace> spaces;
  std::vector<KeptBlock>
      blocks;  // no two in one slot; in the order in which they were written last
  std::vector<KeptClaim> claims;
  bool closed = false;      // nothing came after the end
  uint64_t skipped = 0;     // records that this version does not know, or that make no sense
  uint64_t torn_bytes = 0;  // at the end of the file, of a batch that was not written whole
};

}  // namespace reprise::shard
