// How a client spends its time and its trust: the split of a deadline over several tries, the
// breaker that turns a bad shard into immediate misses, and the back-off between attempts to reach
// one. Pure: time is an argument.
//
// Invariants: a call's deadline is never extended; a shard whose breaker is open costs no time;
// when an open breaker's time is over exactly one caller tries the shard, and all others go on
// without it until that one is back. Thread safety: values, no locks; the owner serialises.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "proto/types/limits.h"

namespace reprise::client {

// The deadline of the next of `tries_left` tries: an equal share of what is left, so that a shard
// that hangs leaves time for the next one. The last try has everything. REQUIRES: tries_left >= 1.
absl::Time TryDeadline(absl::Time now, absl::Time deadline, int tries_left);

// What an outcome says about the shard itself, and not about the request.
enum class Verdict : uint8_t {
  kGood,     // it answered, whatever the answer
  kBad,      // it failed
  kHung,     // it did not answer in a time that suffices for any shard in good health
  kUnknown,  // says nothing: the caller gave up early
};
// `budget`: the time that the call had.
Verdict Judge(const absl::Status& status, absl::Duration budget);

// Closed: calls pass. Open: none pass until `retry_at`. Probing: one call is under way to find out.
class Breaker {
 public:
  enum class State : uint8_t { kClosed, kOpen, kProbing };

  // May a call go to this shard now? When it is an open breaker's first call after its time, the
  // caller is the probe and owes a Report.
  bool Allow(absl::Time now);
  // The verdict on a call that Allow let through. kHung opens at once, kBad after
  // kBreakerFailuresMax in a row.
  void Report(Verdict verdict, absl::Time now);
  // The next call may pass: there is news of the shard (it attached again, the router calls it
  // alive).
  void Reset();

  State state() const { return state_; }
  absl::Time retry_at() const { return retry_at_; }
  int failures() const { return failures_; }
  uint64_t opened() const { return opened_; }

 private:
  void Open(absl::Time now);

  State state_ = State::kClosed;
  int failures_ = 0;
  int opened_in_a_row_ = 0;
  uint64_t opened_ = 0;
  absl::Time retry_at_ = absl::InfinitePast();
  absl::Time probe_until_ = absl::InfinitePast();
};

// The longest that a shard in good health takes to move `bytes`: one that takes longer hangs.
absl::Duration StallLimit(uint64_t bytes);

// The wait before attempt `attempt` (the first is 0, which waits nothing): kBackOffMin, doubled
// each time, at most kBackOffMax, and of that a share between a half and all, chosen by `random`,
// so that clients do not come back in step.
absl::Duration BackOff(int attempt, uint64_t random);

}  // namespace reprise::client
