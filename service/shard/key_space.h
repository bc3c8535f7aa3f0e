// One tenant's blocks under one cache spec.
//
// Thread safety: none; the engine holds its lock.
#pragma once

#include <cstdint>

#include "proto/types/cache_spec.h"
#include "proto/types/ids.h"
#include "service/pool/pool.h"
#include "service/shard/block_table.h"

namespace reprise::shard {

struct KeySpace {
  KeySpaceId id;
  Tenant tenant;
  Fingerprint fingerprint;
  CacheSpec spec;
  BlockShape shape;
  uint32_t open_handles = 0;  // of attachments
  uint64_t blocks = 0;        // committed
  uint64_t reserved = 0;      // blocks in reservations
  uint64_t held_back = 0;     // hidden or quarantined
  BlockId roots = kNoBlock;   // its chains' first blocks, as siblings
};

}  // namespace reprise::shard
