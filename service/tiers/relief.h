// What to do next about tiers that are nearly full, as a pure function: between watermarks, a tier
// gives its coldest blocks to the next one, and the last one drops them.
//
// Thread safety: pure function; the caller keeps the loads.
#pragma once

#include <span>

#include "service/tiers/tiered_pool.h"

namespace reprise::shard {

struct TierLoad {
  double pressure = 0;     // 0: empty, 1: full
  bool relieving = false;  // the high watermark was passed, and the low one is not reached yet
  bool stuck = false;      // nothing more can leave it now
};

struct Relief {
  enum class Kind : uint8_t { kNone, kDemote, kEvict } kind = Kind::kNone;
  Level level = 0;  // of the tier to relieve
};

// The next step, and which tiers are being relieved. The last tier comes first, so that what is
// demoted finds room. kNone: every tier is below its watermark, or stuck.
// REQUIRES: loads, fastest first, are not empty.
Relief NextRelief(std::span<TierLoad> loads);

}  // namespace reprise::shard
