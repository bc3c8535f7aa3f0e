// How fast the caller's engine computes prompts, as it tells: what fetching and moving blocks is
// weighed against.
//
// Invariants: of one cache spec newer tokens count more, halving with every kPrefillHalfLifeTokens.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "proto/types/block_key.h"

namespace reprise::client {

class PrefillRates {
 public:
  // `tokens` of a prompt were computed in one go, in `time`. Fewer than kPrefillTokensMin tell
  // nothing.
  void Add(const Fingerprint& fingerprint, uint64_t tokens, absl::Duration time);
  // Zero: nobody told.
  absl::Duration PerToken(const Fingerprint& fingerprint) const;

 private:
  struct Seen {
    double tokens = 0;
    double seconds = 0;
  };
  mutable absl::Mutex mu_;
  absl::flat_hash_map<Fingerprint, Seen> seen_ ABSL_GUARDED_BY(mu_);
};

}  // namespace reprise::client
