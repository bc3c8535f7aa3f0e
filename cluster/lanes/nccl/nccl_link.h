// One end of a link: the thread that makes a communicator with the peer, warms it, runs the link's
// groups in order, and aborts it when anything is late or wrong. Both ends run the same groups in
// the same order.
//
// Invariants:
//   - a group waits for nothing but those before it, and never longer than its deadline;
//   - memory of a group is kept (NcclTicket's `keep`) until NCCL has let go of it, even when its
//     caller gave up: with a peer that is dead and an abort that hangs, that is later than the
//     call's end;
//   - a link that failed refuses at once, until it was rebuilt;
//   - no more than kNcclLinkQueueMax groups wait.
// Thread safety: all methods may be called from any thread.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "cluster/lanes/monotonic_deadline.h"
#include "cluster/lanes/nccl/link_state.h"
#include "cluster/lanes/nccl/nccl_communicator.h"

namespace reprise::lanes {

struct NcclTicket {
  NcclGroup group;
  std::shared_ptr<const void> keep;  // what holds the group's memory in place
  std::function<void()> done;        // on the link's thread when all of it has moved; may be empty
  MonotonicDeadline deadline = MonotonicDeadline::Never();
};

class NcclLink {
 public:
  struct Options {
    std::shared_ptr<const NcclLibrary> nccl;
    std::shared_ptr<NcclDevice> device;
    int rank = 0;
    // The id of the next communicator; called on the link's thread before each try, returns by the
    // deadline, and early once interrupt was called.
    std::function<absl::StatusOr<ncclUniqueId>(MonotonicDeadline deadline)> rendezvous;
    // The link is closed for good; from any thread, returns at once. May be empty.
    std::function<void()> interrupt;
    // The link is down, and its abort is about to take its time; on the link's thread, returns at
    // once. May be empty.
    std::function<void()> down;
    // It failed: was not merely closed or unused. On the link's thread, returns at once. May be
    // empty.
    std::function<void()> failed;
    // NCCL has let go of all that it had of this link; on the link's thread. May be empty.
    std::function<void()> released;
    LinkState::Options state;
    absl::Duration stop_grace = limits::kNcclStopGrace;
  };
  class Pending;

  explicit NcclLink(Options options);
  // Closes. Waits for the abort, but no longer than until stop_grace after the first Close: a
  // thread that is stuck in NCCL is left behind, with all that it may still touch. Whoever ends
  // several links closes them all before it waits for one.
  ~NcclLink();

  NcclLinkState state() const;
  // Somebody has use for the link: connects in the background, unless it is up or backing off.
  void Want();
  // Queues a group behind those before it. UNAVAILABLE (LANE_DOWN) unless the link is up
  // or about to be; RESOURCE_EXHAUSTED (NCCL_QUEUE) when kNcclLinkQueueMax are not done yet.
  absl::StatusOr<std::shared_ptr<Pending>> Submit(NcclTicket ticket);
  // OK when the group is done; UNAVAILABLE (LANE_DOWN) when the link failed; DEADLINE_EXCEEDED, and
  // the link fails.
  absl::Status Await(Pending& pending, MonotonicDeadline deadline);
  // The peer, or whoever speaks for it, says that the link is broken.
  void Fail(absl::string_view why);
  // Gives up for good. Returns at once.
  void Close();
  // The same for whoever may outlive the link.
  std::function<void()> Closer() const;
  // True once the thread is done with NCCL after Close, or after the failure of a link that is not
  // rebuilt.
  bool WaitClosed(absl::Duration timeout) const;
  bool closed() const { return WaitClosed(absl::ZeroDuration()); }

 private:
  struct Core;

  const std::shared_ptr<Core> core_;
  std::thread thread_;
};

}  // namespace reprise::lanes
