// Takes the bytes of a block from a slot of one tier to a slot of another, and looks whether they
// are still those that were stored.
//
// Thread safety: may be called from any thread. Holds no lock: the caller keeps both slots in use
// and the source's bytes still.
#pragma once

#include "proto/types/checksum128.h"
#include "service/tiers/tiered_pool.h"

namespace reprise::shard {

struct TierMove {
  SlotRef from;
  SlotRef to;
  BlockShape shape;
  Checksum128 checksum;  // of the block when it was committed
};

enum class MoveOutcome : uint8_t {
  kMoved,
  kRefused,  // the device did not do it; the source is as good as before
  kCorrupt,  // what arrived is not what was stored
};

MoveOutcome Move(TieredPool& pool, const TierMove& move);

}  // namespace reprise::shard
