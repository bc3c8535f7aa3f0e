// What the verbs of a shard answer, as both ends speak of it: outcomes, runs by tier, reasons of a
// miss.
//
// Thread safety: values; no shared state.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "proto/types/cache_spec.h"
#include "proto/types/ids.h"

namespace reprise {

// `blocks` consecutive blocks that lie on one tier.
struct TierRun {
  Tier tier = Tier::kDram;
  uint32_t blocks = 0;
  friend bool operator==(const TierRun&, const TierRun&) = default;
};

enum class ReserveOutcome : uint8_t {
  kPresent = 1,  // stored already: nothing to write
  kGranted = 2,  // a slot is held: write it
  kPending = 3,  // another writer holds a reservation for this key
  kNoSpace = 4,  // not granted
};

enum class MissReason : uint8_t {
  kNone = 1,
  kNeverStored,
  kEvicted,
  kRemoved,
  kQuarantined,
  kTokensDiffer,
  kOtherSpec,
  kPending
};

// Why a prompt hits as far as it does and no further; mirrors reprise.v1.ExplainResponse.
struct Explanation {
  uint32_t run_blocks = 0;
  std::vector<TierRun> tiers;
  MissReason reason = MissReason::kNone;
  uint32_t miss_block = 0;
  int64_t event_unix_ms = 0;
  std::string event_cause;
  uint32_t first_differing_token = 0;
  uint32_t prompt_token = 0;
  uint32_t stored_token = 0;
  SpecDifference spec_difference;
  std::string sentence;
};

}  // namespace reprise
