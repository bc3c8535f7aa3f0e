// What a caller asks of a store about K/V that it is not about to use: to keep it, or to let it go.
//
// The verbs are those on which engines and routers are agreeing (vLLM's RFC "KV cache hints",
// vllm-project/vllm#57103; NVIDIA Dynamo's KV hints); payload schemas differ still, so adapters map
// each of them to these. A claim is what Retain and Pin leave behind.
//
// Thread safety: values; no shared state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "proto/types/limits.h"

namespace reprise {

enum class HintVerb : uint8_t {
  kRetain = 1,  // goes after what nobody claims, lower priority first
  kPin,         // is not evicted until it ends; may move to a slower tier
  kRelease,     // ends a claim
  kEvict,       // drops blocks now, from a prefix's end
  kDemote,      // moves blocks to the next slower tier now, from a prefix's end
};

struct Hint {
  HintVerb verb = HintVerb::kRetain;
  std::string claim_id;  // kRetain, kPin, kRelease: the claim's name within tenant and spec
  uint32_t priority = limits::kClaimPriority;  // kRetain: 1 to kClaimPriorityMax
  absl::Duration ttl;                          // kRetain, kPin
  uint32_t first_block = 0;                    // kEvict, kDemote: blocks before it stay
  bool unless_claimed = false;  // kRetain, kPin: a claim that has the name stays as it is
};

enum class HintOutcome : uint8_t {
  kApplied = 1,  // all of it
  kClipped,      // a part of it, and no more will come
  kDeferred,     // what is stored; the rest of a claim as soon as it is stored
  kMissing,      // there is nothing that it is about
};

struct HintResult {
  HintOutcome outcome = HintOutcome::kMissing;
  uint32_t blocks = 0;  // kRetain, kPin: held now, from block 0; kEvict: dropped; kDemote: moved;
                        // kRelease: held before
  absl::Duration ttl;   // kRetain, kPin: what it got
  std::string why;      // a sentence; empty: kApplied
};

// A claim on the first blocks of a chain, as the hint that places it.
struct ChainClaim {
  Hint hint;
  uint32_t blocks = 0;
};

const char* HintVerbName(HintVerb verb);           // "retain", "pin", "release", "evict", "demote"
const char* HintOutcomeName(HintOutcome outcome);  // "applied", "clipped", "deferred", "missing"

// INVALID_ARGUMENT naming the field that makes no sense: about `key_count` keys.
absl::Status CheckHint(const Hint& hint, size_t key_count);

}  // namespace reprise
