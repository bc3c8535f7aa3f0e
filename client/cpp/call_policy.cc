#include "client/cpp/call_policy.h"

#include <algorithm>

#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::client {

absl::Time TryDeadline(absl::Time now, absl::Time deadline, int tries_left) {
  REPRISE_CHECK(tries_left >= 1);
  if (tries_left == 1 || now >= deadline || deadline == absl::InfiniteFuture()) return deadline;
  return now + (deadline - now) / tries_left;
}

Verdict Judge(const absl::Status& status, absl::Duration budget) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
      // With a reason it is an answer: the shard drains, a router knows no living shard, one lane
      // is down.
      return RefusalReason(status).empty() ? Verdict::kBad : Verdict::kGood;
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kUnimplemented:
      return Verdict::kBad;
    case absl::StatusCode::kDeadlineExceeded:
      return budget >= limits::kHungCallMin ? Verdict::kHung : Verdict::kUnknown;
    case absl::StatusCode::kCancelled:
      return Verdict::kUnknown;
    default:
      return Verdict::kGood;
  }
}

bool Breaker::Allow(absl::Time now) {
  switch (state_) {
    case State::kClosed:
      return true;
    case State::kOpen:
      if (now < retry_at_) return false;
      break;
    case State::kProbing:
      // A probe that never came back must not shut the shard out for good.
      if (now < probe_until_) return false;
      break;
  }
  state_ = State::kProbing;
  probe_until_ = now + limits::kBreakerOpenMax;
  return true;
}

void Breaker::Report(Verdict verdict, absl::Time now) {
  switch (verdict) {
    case Verdict::kGood:
      Reset();
      return;
    case Verdict::kBad:
      ++failures_;
      if (state_ == State::kProbing || failures_ >= limits::kBreakerFailuresMax) Open(now);
      return;
    case Verdict::kHung:
      ++failures_;
      Open(now);
      return;
    case Verdict::kUnknown:
      // A probe that learned nothing leaves the breaker as it was: the next caller is the probe.
      if (state_ == State::kProbing) state_ = State::kOpen;
      return;
  }
}

void Breaker::Reset() {
  state_ = State::kClosed;
  failures_ = 0;
  opened_in_a_row_ = 0;
}

void Breaker::Open(absl::Time now) {
  // Calls that were under way when the breaker opened do not make it stay open longer.
  if (state_ == State::kOpen && now < retry_at_) return;
  absl::Duration wait = limits::kBreakerOpenMin;
  for (int i = 0; i < opened_in_a_row_ && wait < limits::kBreakerOpenMax; ++i) wait *= 2;
  retry_at_ = now + std::min(wait, limits::kBreakerOpenMax);
  state_ = State::kOpen;
  ++opened_in_a_row_;
  ++opened_;
}

absl::Duration StallLimit(uint64_t bytes) {
  return limits::kTransferStallMax +
         absl::Seconds(static_cast<double>(bytes) / static_cast<double>(limits::kTransferRateMin));
}

absl::Duration BackOff(int attempt, uint64_t random) {
  if (attempt <= 0) return absl::ZeroDuration();
  absl::Duration wait = limits::kBackOffMin;
  for (int i = 1; i < attempt && wait < limits::kBackOffMax; ++i) wait *= 2;
  wait = std::min(wait, limits::kBackOffMax);
  constexpr uint64_t kSteps = 1024;
  return wait / 2 + wait / 2 * static_cast<double>(random % kSteps) / static_cast<double>(kSteps);
}

}  // namespace reprise::client
