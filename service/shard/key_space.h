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

// What a tenant has, over all its key spaces. Bytes are of slots.
struct TenantTally {
  uint64_t bytes = 0;          // of its blocks, whatever their state
  uint64_t claimed_bytes = 0;  // of those that claims keep
  uint64_t pinned_bytes = 0;   // of them by pins
  uint64_t claims = 0;
  uint64_t keys_ahead = 0;  // that they wait for
};

struct KeySpace {
  KeySpaceId id;
  Tenant tenant;
  Fingerprint fingerprint;
  CacheSpec spec;
  BlockShape shape;
  uint32_t open_handles = 0;           // of attachments
  uint64_t blocks = 0;                 // committed
  uint64_t reserved = 0;               // blocks in reservations
  uint64_t held_back = 0;              // hidden or quarantined
  BlockId roots = kNoBlock;            // its chains' first blocks, as siblings
  std::shared_ptr<TenantTally> tally;  // one for all key spaces of the tenant
};

}  // namespace reprise::shard
