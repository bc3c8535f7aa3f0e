#include "cluster/lanes/nccl/link_state.h"

#include <algorithm>

namespace reprise::lanes {
namespace {
constexpr int kDoublingsMax = 30;
}

bool LinkState::HasCommunicator() const {
  return state_ == NcclLinkState::kConnecting || state_ == NcclLinkState::kWarming ||
         state_ == NcclLinkState::kUp || state_ == NcclLinkState::kFailed;
}

LinkState::Step LinkState::Next(absl::Time now) {
  if (state_ == NcclLinkState::kBackingOff && now >= retry_at_) state_ = NcclLinkState::kIdle;
  if (closing_ && !HasCommunicator()) state_ = NcclLinkState::kClosed;
  switch (state_) {
    case NcclLinkState::kIdle:
      if (!wanted_) return Step::kWait;
      wanted_ = false;
      state_ = NcclLinkState::kConnecting;
      deadline_ = now + options_.connect_timeout;
      return Step::kConnect;
    case NcclLinkState::kConnecting:
    case NcclLinkState::kWarming:
      if (!closing_ && now < deadline_) return Step::kPoll;
      Failed(now);
      return Step::kAbort;
    case NcclLinkState::kUp:
      if (!closing_ && now < last_used_ + options_.idle_max) return Step::kServe;
      state_ = NcclLinkState::kFailed;
      counts_as_failure_ = false;
      return Step::kAbort;
    case NcclLinkState::kFailed:
      return Step::kAbort;
    case NcclLinkState::kBackingOff:
      return Step::kWait;
    case NcclLinkState::kClosed:
      return Step::kStop;
  }
  return Step::kStop;
}

absl::Time LinkState::wake_at() const {
  switch (state_) {
    case NcclLinkState::kConnecting:
    case NcclLinkState::kWarming:
      return deadline_;
    case NcclLinkState::kUp:
      return last_used_ + options_.idle_max;
    case NcclLinkState::kBackingOff:
      return retry_at_;
    case NcclLinkState::kIdle:
    case NcclLinkState::kFailed:
    case NcclLinkState::kClosed:
      return absl::InfiniteFuture();
  }
  return absl::InfiniteFuture();
}

void LinkState::Connected() {
  if (state_ == NcclLinkState::kConnecting) state_ = NcclLinkState::kWarming;
}

void LinkState::Warmed(absl::Time now) {
  if (state_ != NcclLinkState::kWarming) return;
  state_ = NcclLinkState::kUp;
  wanted_ = false;
  failures_ = 0;
  last_used_ = now;
}

void LinkState::Failed(absl::Time now) {
  if (!HasCommunicator() || state_ == NcclLinkState::kFailed) return;
  state_ = NcclLinkState::kFailed;
  counts_as_failure_ = true;
  failures_ = std::min(failures_ + 1, kDoublingsMax);
}

void LinkState::Aborted(absl::Time now) {
  if (state_ != NcclLinkState::kFailed) return;
  if (!counts_as_failure_) {
    state_ = closing_ || !options_.rebuild ? NcclLinkState::kClosed : NcclLinkState::kIdle;
    return;
  }
  if (closing_ || !options_.rebuild) {
    state_ = NcclLinkState::kClosed;
    return;
  }
  state_ = NcclLinkState::kBackingOff;
  absl::Duration wait = options_.back_off_min;
  for (int i = 1; i < failures_ && wait < options_.back_off_max; ++i) wait *= 2;
  retry_at_ = now + std::min(wait, options_.back_off_max);
}

void LinkState::Close() {
  closing_ = true;
}

}  // namespace reprise::lanes
