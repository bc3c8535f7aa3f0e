// One tenant's blocks under one cache spec.
//
// Thread safety: none; the engine holds its lock.
#pragma once

#include <cstdint>
#include <memory>

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
  // Of all slots of the tenant's blocks, whatever their state. One for all its key spaces.
  std::shared_ptr<uint64_t> tenant_bytes;
};

}  // namespace reprise::shard
