#include "cluster/lanes/nccl/nccl_link.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cluster/lanes/lane_status.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::lanes {
class NcclLink::Pending {
 public:
  explicit Pending(NcclTicket t) : ticket(std::move(t)) {}
  NcclTicket ticket;
  bool settled = false;  // guarded by Core::mu, like `status`
  absl::Status status;
};

// Shared by the link and its thread, which may have to outlive the link.
struct NcclLink::Core {
  explicit Core(Options o) : options(std::move(o)), state(options.state) {}

  absl::Time Now() const { return MonotonicClock().Now(); }
  void Run();
  void Connect() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void PollConnection() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void Serve() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void CheckIdle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void Abort() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void Break(const absl::Status& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void Settle(Pending& pending, absl::Status status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // True when nothing has changed in all of `time`.
  bool Nap(absl::Duration time) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    return changed.WaitWithTimeout(&mu, time);
  }
  void Close();
  absl::Status FinishGroup(Pending& pending) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  absl::StatusOr<std::unique_ptr<NcclCommunicator>> NewCommunicator();
  absl::Status Warm();

  const Options options;
  mutable absl::Mutex mu;
  absl::CondVar changed;  // anything below
  LinkState state ABSL_GUARDED_BY(mu);
  std::deque<std::shared_ptr<Pending>> queue ABSL_GUARDED_BY(mu);
  absl::Status broken ABSL_GUARDED_BY(mu);  // why the link is to fail; OK: it is not
  bool finished ABSL_GUARDED_BY(mu) = false;
  absl::Time grace_ends ABSL_GUARDED_BY(mu) = absl::InfiniteFuture();  // set by Close
  absl::Duration nap ABSL_GUARDED_BY(mu);

  // Of the thread.
  std::unique_ptr<NcclCommunicator> communicator;
  std::unique_ptr<DeviceMemory> warm;
};

void NcclLink::Core::Run() {
  absl::MutexLock lock(&mu);
  while (true) {
    if (!broken.ok()) state.Failed(Now());
    switch (state.Next(Now())) {
      case LinkState::Step::kWait:
        broken = absl::OkStatus();
        Nap(state.wake_at() - Now());
        break;
      case LinkState::Step::kConnect:
        Connect();
        break;
      case LinkState::Step::kPoll:
        PollConnection();
        break;
      case LinkState::Step::kServe:
        Serve();
        break;
      case LinkState::Step::kAbort:
        Abort();
        break;
      case LinkState::Step::kStop:
        finished = true;
        changed.SignalAll();
        return;
    }
  }
}

void NcclLink::Core::Connect() {
  broken = absl::OkStatus();
  nap = limits::kNcclPollMin;
  mu.Unlock();
  absl::StatusOr<std::unique_ptr<NcclCommunicator>> made = NewCommunicator();
  mu.Lock();
  if (!made.ok()) {
    Break(made.status());
    return;
  }
  communicator = *std::move(made);
}

absl::StatusOr<std::unique_ptr<NcclCommunicator>> NcclLink::Core::NewCommunicator() {
  const MonotonicDeadline deadline = MonotonicDeadline::After(options.state.connect_timeout);
  REPRISE_ASSIGN_OR_RETURN(const ncclUniqueId id, options.rendezvous(deadline));
  return NcclCommunicator::Create(
      {.nccl = options.nccl, .device = options.device, .id = id, .rank = options.rank});
}

void NcclLink::Core::PollConnection() {
  mu.Unlock();
  absl::StatusOr<bool> done = communicator->Poll();
  mu.Lock();
  if (!done.ok()) {
    Break(done.status());
  } else if (!*done) {
    Nap(nap);
    nap = std::min(nap * 2, limits::kNcclPollMax);
  } else if (state.state() == NcclLinkState::kWarming) {
    state.Warmed(Now());
    changed.SignalAll();
  } else {
    // Before the warming begins: the peer may be done with it, and ask for a group, at once.
    state.Connected();
    mu.Unlock();
    const absl::Status begun = Warm();
    mu.Lock();
    if (!begun.ok()) Break(begun);
  }
}

absl::Status NcclLink::Core::Warm() {
  if (warm == nullptr) {
    REPRISE_ASSIGN_OR_RETURN(warm, options.device->Allocate(2 * limits::kNcclWarmBytes));
  }
  const std::span<uint8_t> bytes = warm->bytes();
  return communicator->Begin(
      {.sends = {bytes.first(limits::kNcclWarmBytes)},
       .receives = {bytes.subspan(limits::kNcclWarmBytes, limits::kNcclWarmBytes)}});
}

void NcclLink::Core::Serve() {
  if (queue.empty()) {
    if (Nap(std::min(state.wake_at() - Now(), limits::kNcclIdleCheckInterval))) CheckIdle();
    return;
  }
  const std::shared_ptr<Pending> pending = queue.front();
  const absl::Status status = FinishGroup(*pending);
  if (!status.ok()) {
    Break(status);  // and the group stays in the queue until the abort has let go of its memory
    return;
  }
  mu.Unlock();
  pending->ticket.keep.reset();
  if (pending->ticket.done) pending->ticket.done();
  mu.Lock();
  queue.pop_front();
  state.Used(Now());
  Settle(*pending, absl::OkStatus());
}

// A peer that is gone shows before somebody's call finds out.
void NcclLink::Core::CheckIdle() {
  mu.Unlock();
  const absl::Status healthy = communicator->Poll().status();
  mu.Lock();
  if (!healthy.ok()) Break(healthy);
}

// Runs one group, looking up between polls.
absl::Status NcclLink::Core::FinishGroup(Pending& pending) {
  mu.Unlock();
  absl::Status begun = communicator->Begin(pending.ticket.group);
  mu.Lock();
  REPRISE_RETURN_IF_ERROR(begun);
  const absl::Time start = Now();
  while (true) {
    mu.Unlock();
    absl::StatusOr<bool> done = communicator->Poll();
    mu.Lock();
    REPRISE_RETURN_IF_ERROR(done.status());
    if (*done) return absl::OkStatus();
    REPRISE_RETURN_IF_ERROR(broken);
    if (pending.ticket.deadline.over())
      return LaneDown("NCCL: a transfer was not done by its deadline");
    // Looking seldom costs the last nap, which is to be small beside the whole.
    nap = std::clamp((Now() - start) / limits::kNcclPollShare, limits::kNcclPollMin,
                     limits::kNcclPollMax);
    Nap(std::min(nap, pending.ticket.deadline.left()));
  }
}

void NcclLink::Core::Break(const absl::Status& why) {
  broken = why;
  state.Failed(Now());
  changed.SignalAll();
}

void NcclLink::Core::Settle(Pending& pending, absl::Status status) {
  pending.settled = true;
  pending.status = std::move(status);
  changed.SignalAll();
}

void NcclLink::Core::Abort() {
  // Callers hear of it at once; the memory is kept until NCCL has let go of it.
  const absl::Status why = broken.ok() ? LaneDown("NCCL: the link was closed") : broken;
  for (const std::shared_ptr<Pending>& pending : queue) Settle(*pending, why);
  std::deque<std::shared_ptr<Pending>> kept;
  kept.swap(queue);
  if (state.failing() && options.failed) options.failed();
  mu.Unlock();
  if (options.down) options.down();
  communicator.reset();
  warm.reset();
  for (const std::shared_ptr<Pending>& pending : kept) pending->ticket.keep.reset();
  kept.clear();
  if (options.released) options.released();
  mu.Lock();
  broken = absl::OkStatus();
  state.Aborted(Now());
  changed.SignalAll();
}

NcclLink::NcclLink(Options options) : core_(std::make_shared<Core>(std::move(options))) {
  thread_ = std::thread([core = core_] { core->Run(); });
}

NcclLink::~NcclLink() {
  Close();
  absl::Duration grace;
  {
    absl::MutexLock lock(&core_->mu);
    grace = core_->grace_ends - core_->Now();
  }
  if (WaitClosed(grace)) {
    thread_.join();
  } else {
    thread_.detach();
  }
}

NcclLinkState NcclLink::state() const {
  absl::MutexLock lock(&core_->mu);
  return core_->state.state();
}

void NcclLink::Want() {
  absl::MutexLock lock(&core_->mu);
  core_->state.Want();
  core_->changed.SignalAll();
}

absl::StatusOr<std::shared_ptr<NcclLink::Pending>> NcclLink::Submit(NcclTicket ticket) {
  absl::MutexLock lock(&core_->mu);
  const NcclLinkState state = core_->state.state();
  // The peer may be done with warming a moment earlier.
  if ((state != NcclLinkState::kUp && state != NcclLinkState::kWarming) || !core_->broken.ok()) {
    return LaneDown(absl::StrCat("NCCL: the link is ", NcclLinkStateName(state)));
  }
  if (core_->queue.size() >= limits::kNcclLinkQueueMax) {
    return Refusal(absl::StatusCode::kResourceExhausted, "NCCL_QUEUE",
                   absl::StrCat("this link has its ", limits::kNcclLinkQueueMax,
                                " groups to move: wait for one, or use the stream lane"));
  }
  ticket.deadline = ticket.deadline.OrAfter(limits::kNcclTransferMax);
  auto pending = std::make_shared<Pending>(std::move(ticket));
  core_->queue.push_back(pending);
  core_->changed.SignalAll();
  return pending;
}

absl::Status NcclLink::Await(Pending& pending, MonotonicDeadline deadline) {
  absl::MutexLock lock(&core_->mu);
  while (!pending.settled) {
    if (deadline.over()) {
      core_->Break(LaneDown("NCCL: a transfer was not done by its caller's deadline"));
      return absl::DeadlineExceededError("NCCL: the deadline is over");
    }
    core_->changed.WaitWithTimeout(&core_->mu, deadline.left());
  }
  return pending.status;
}

void NcclLink::Fail(absl::string_view why) {
  absl::MutexLock lock(&core_->mu);
  switch (core_->state.state()) {
    case NcclLinkState::kConnecting:
    case NcclLinkState::kWarming:
    case NcclLinkState::kUp:
      core_->Break(LaneDown(why));
      break;
    case NcclLinkState::kIdle:
    case NcclLinkState::kFailed:
    case NcclLinkState::kBackingOff:
    case NcclLinkState::kClosed:
      break;
  }
}

void NcclLink::Core::Close() {
  {
    absl::MutexLock lock(&mu);
    state.Close();
    if (broken.ok()) broken = LaneDown("NCCL: the link was closed");
    grace_ends = std::min(grace_ends, Now() + options.stop_grace);
    changed.SignalAll();
  }
  if (options.interrupt) options.interrupt();
}

void NcclLink::Close() {
  core_->Close();
}

std::function<void()> NcclLink::Closer() const {
  return [core = core_] { core->Close(); };
}

bool NcclLink::WaitClosed(absl::Duration timeout) const {
  absl::MutexLock lock(&core_->mu);
  return core_->mu.AwaitWithTimeout(
      absl::Condition(
          +[](bool* finished) { return *finished; }, &core_->finished),
      timeout);
}

}  // namespace reprise::lanes
