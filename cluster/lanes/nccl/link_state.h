// The life of a link between two processes, as a pure state machine: takes times and events, says
// what to do next.
//
//   idle -Want-> connecting -Connected-> warming -Warmed-> up
//   up -unused for idle_max-> failed -Aborted-> idle
//   connecting, warming -deadline or Failed-> failed -Aborted-> backing off -> idle or connecting
//   up -Failed-> failed -Aborted-> backing off -> idle or connecting
//   any -Close-> (failed -Aborted->) closed
//
// Invariants: a communicator exists in connecting, warming, up and failed only; failed is left by
// Aborted alone; each failure in a row doubles the wait, and only a warmed link forgets them.
// Thread safety: none; the driver holds a lock.
#pragma once

#include "absl/time/time.h"
#include "cluster/lanes/lane_choice.h"
#include "proto/types/limits.h"

namespace reprise::lanes {

class LinkState {
 public:
  struct Options {
    absl::Duration connect_timeout = limits::kNcclConnectTimeout;
    absl::Duration idle_max = limits::kNcclIdleMax;
    absl::Duration back_off_min = limits::kNcclBackOffMin;
    absl::Duration back_off_max = limits::kNcclBackOffMax;
    bool rebuild = true;  // false: the first failure closes the link
  };

  enum class Step {
    kWait,     // until wake_at() or an event
    kConnect,  // start making a communicator, then poll it
    kPoll,     // look at the communicator
    kServe,    // run transfers, or wait for them until wake_at()
    kAbort,    // abort the communicator, then Aborted()
    kStop      // for good
  };

  explicit LinkState(Options options) : options_(options) {}

  NcclLinkState state() const { return state_; }
  // What to do at `now`; moves on when a time has come.
  Step Next(absl::Time now);
  // When Next has something new to say, if no event comes before.
  absl::Time wake_at() const;

  // Until it is up; a link that is up has what was wanted.
  void Want() { wanted_ = wanted_ || state_ != NcclLinkState::kUp; }
  void Connected();
  void Warmed(absl::Time now);
  void Used(absl::Time now) { last_used_ = now; }
  // In any state that has a communicator; elsewhere nothing.
  void Failed(absl::Time now);
  void Aborted(absl::Time now);
  void Close();
  // Until Aborted: it was a failure that ended the communicator, and nobody had closed the link.
  bool failing() const {
    return state_ == NcclLinkState::kFailed && counts_as_failure_ && !closing_;
  }

 private:
  bool HasCommunicator() const;

  const Options options_;
  NcclLinkState state_ = NcclLinkState::kIdle;
  bool wanted_ = false;
  bool closing_ = false;
  bool counts_as_failure_ = false;  // why the link is in kFailed
  int failures_ = 0;                // in a row
  absl::Time deadline_;             // of connecting and warming
  absl::Time last_used_;
  absl::Time retry_at_;
};

}  // namespace reprise::lanes
