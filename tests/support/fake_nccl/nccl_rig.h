// A whole NCCL lane over the fake libnccl: a shard's end, a caller's end, the calls between them on
// threads of their own (as an RPC would be), and a view lane to fall back to.
#pragma once

#include <atomic>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "cluster/lanes/fallback_lane.h"
#include "cluster/lanes/nccl/nccl_host.h"
#include "cluster/lanes/nccl/nccl_lane.h"
#include "cluster/lanes/view/view_lane.h"
#include "cluster/lanes/view/view_server.h"
#include "tests/support/fake_nccl/fake_device.h"
#include "tests/support/forwarding_lane_host.h"
#include "tests/support/lane_ends.h"
#include "tests/support/memory_lane_host.h"
#include "tests/support/view_host/memfd_extents.h"

namespace reprise::testing {

// Calls a host in this process and gives up at the deadline, whatever the host does.
class ThreadedControl final : public lanes::NcclControl {
 public:
  ThreadedControl(lanes::NcclHost* host, AttachmentId attachment)
      : host_(host), attachment_(attachment) {}
  ~ThreadedControl() override {
    for (std::thread& thread : threads_) thread.join();
  }

  absl::Status Connect(const lanes::NcclConnectCall& call,
                       lanes::MonotonicDeadline deadline) override {
    return Await<absl::Status>(deadline,
                               [this, call] { return host_->Connect(attachment_, call); });
  }
  absl::StatusOr<lanes::NcclOpened> Open(const lanes::NcclOpenCall& call,
                                         lanes::MonotonicDeadline deadline) override {
    return Await<absl::StatusOr<lanes::NcclOpened>>(
        deadline, [this, call, deadline] { return host_->Open(attachment_, call, deadline); });
  }
  absl::Status Finish(lanes::NcclLinkId link, uint64_t sequence,
                      lanes::MonotonicDeadline deadline) override {
    return Await<absl::Status>(deadline, [this, link, sequence, deadline] {
      return host_->Finish(attachment_, link, sequence, deadline);
    });
  }
  void Hangup(lanes::NcclLinkId link) override { host_->Hangup(attachment_, link); }
  void Interrupt() override {
    absl::MutexLock lock(&mu_);
    interrupted_ = true;
  }

 private:
  template <typename Answer>
  Answer Await(lanes::MonotonicDeadline deadline, std::function<Answer()> call) {
    auto answer = std::make_shared<std::optional<Answer>>();
    absl::MutexLock lock(&mu_);
    threads_.emplace_back([this, answer, call = std::move(call)] {
      Answer said = call();
      absl::MutexLock lock(&mu_);
      *answer = std::move(said);
    });
    const auto over = [this, &answer]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
      return answer->has_value() || interrupted_;
    };
    mu_.AwaitWithTimeout(absl::Condition(&over), deadline.left());
    if (answer->has_value()) return **answer;
    return interrupted_ ? Answer(absl::CancelledError("interrupted"))
                        : Answer(absl::DeadlineExceededError("no answer"));
  }

  lanes::NcclHost* const host_;
  const AttachmentId attachment_;
  absl::Mutex mu_;
  bool interrupted_ ABSL_GUARDED_BY(mu_) = false;
  std::list<std::thread> threads_ ABSL_GUARDED_BY(mu_);
};

// Another control, between which and its caller a test stands. A hook that is not set, or answers
// nullopt, passes the call on.
class HookedControl final : public lanes::NcclControl {
 public:
  struct Hooks {
    std::function<std::optional<absl::Status>(lanes::MonotonicDeadline deadline)> connect;
    std::function<std::optional<absl::StatusOr<lanes::NcclOpened>>(const lanes::NcclOpenCall& call)>
        open;
    std::function<std::optional<absl::Status>()> finish;
    std::function<void()> interrupt;
  };
  HookedControl(std::shared_ptr<lanes::NcclControl> next, Hooks hooks)
      : next_(std::move(next)), hooks_(std::move(hooks)) {}

  absl::Status Connect(const lanes::NcclConnectCall& call,
                       lanes::MonotonicDeadline deadline) override {
    const auto said = hooks_.connect ? hooks_.connect(deadline) : std::nullopt;
    return said.has_value() ? *said : next_->Connect(call, deadline);
  }
  absl::StatusOr<lanes::NcclOpened> Open(const lanes::NcclOpenCall& call,
                                         lanes::MonotonicDeadline deadline) override {
    const auto said = hooks_.open ? hooks_.open(call) : std::nullopt;
    return said.has_value() ? *said : next_->Open(call, deadline);
  }
  absl::Status Finish(lanes::NcclLinkId link, uint64_t sequence,
                      lanes::MonotonicDeadline deadline) override {
    const auto said = hooks_.finish ? hooks_.finish() : std::nullopt;
    return said.has_value() ? *said : next_->Finish(link, sequence, deadline);
  }
  void Hangup(lanes::NcclLinkId link) override { next_->Hangup(link); }
  void Interrupt() override {
    if (hooks_.interrupt) hooks_.interrupt();
    next_->Interrupt();
  }

 private:
  const std::shared_ptr<lanes::NcclControl> next_;
  const Hooks hooks_;
};

// A host as the NCCL lane sees it: one block of every read may lie in other memory than the
// device's, as a block that was moved to dram does.
class MixedHost final : public ForwardingLaneHost {
 public:
  using ForwardingLaneHost::ForwardingLaneHost;
  absl::StatusOr<std::vector<lanes::PinnedBytes>> OpenRead(AttachmentId attachment, LeaseId lease,
                                                           uint32_t first,
                                                           uint32_t blocks) override {
    auto opened = ForwardingLaneHost::OpenRead(attachment, lease, first, blocks);
    if (opened.ok() && elsewhere >= first && elsewhere - first < opened->size()) {
      (*opened)[elsewhere - first].memory = lanes::MemoryKind::kDevice;
    }
    return opened;
  }
  std::atomic<uint32_t> elsewhere{~uint32_t{0}};
};

class NcclRig {
 public:
  struct Options {
    lanes::LinkState::Options state{.connect_timeout = absl::Milliseconds(500),
                                    .back_off_min = absl::Milliseconds(20),
                                    .back_off_max = absl::Milliseconds(100)};
    uint64_t landing_bytes = 16 << 20;
    std::shared_ptr<lanes::LinkCap> cap;
    absl::Duration stop_grace = limits::kNcclStopGrace;
    // How the caller's end reaches the shard's; empty: ThreadedControl, with hooks.
    std::function<std::shared_ptr<lanes::NcclControl>(lanes::NcclHost*)> control;
    HookedControl::Hooks hooks;
  };
  static constexpr AttachmentId kAttachment{0x1234};

  NcclRig() : NcclRig(Options()) {}
  explicit NcclRig(Options options)
      : host_(kAttachment, [this](uint64_t bytes) { return extents_.Allocate(bytes); }),
        view_(*lanes::ViewServer::Create({.host = &host_, .exporter = &extents_})),
        nccl_host_(std::make_unique<lanes::NcclHost>(
            lanes::NcclHost::Options{.host = &nccl_view_,
                                     .nccl = nccl_,
                                     .device = device_,
                                     .state = options.state,
                                     .stop_grace = options.stop_grace})) {
    auto nccl = std::make_unique<lanes::NcclLane>(lanes::NcclLane::Options{
        .nccl = nccl_,
        .device = device_,
        .control = options.control
                       ? options.control(nccl_host_.get())
                       : std::make_shared<HookedControl>(
                             std::make_shared<ThreadedControl>(nccl_host_.get(), kAttachment),
                             options.hooks),
        .cap = options.cap,
        .landing_bytes = options.landing_bytes,
        .state = options.state,
        .stop_grace = options.stop_grace});
    nccl_lane_ = nccl.get();
    std::vector<std::unique_ptr<lanes::Lane>> lanes;
    lanes.push_back(std::move(nccl));
    lanes.push_back(*lanes::ViewLane::Connect({view_->address(), kAttachment},
                                              absl::Now() + absl::Seconds(10)));
    lane_ = std::make_unique<lanes::FallbackLane>(std::move(lanes));
  }
  ~NcclRig() {
    host_.Unstall();
    lane_.reset();
  }

  MemoryLaneHost& host() { return host_; }
  lanes::NcclHost& nccl_host() { return *nccl_host_; }
  lanes::NcclLane& nccl() { return *nccl_lane_; }
  lanes::FallbackLane& lane() { return *lane_; }
  FakeDevice& device() { return *device_; }
  MixedHost& nccl_view() { return nccl_view_; }

  // True once the link is up; false when it was not within `timeout`.
  bool AwaitUp(absl::Duration timeout = absl::Seconds(30)) {
    const auto deadline = lanes::MonotonicDeadline::After(timeout);
    while (!deadline.over()) {
      nccl_lane_->Prepare();
      if (nccl_lane_->link_state() == lanes::NcclLinkState::kUp) return true;
      std::this_thread::yield();
    }
    return false;
  }

 private:
  MemfdExtents extents_;
  MemoryLaneHost host_;
  MixedHost nccl_view_{host_};
  std::unique_ptr<lanes::ViewServer> view_;
  const std::shared_ptr<const lanes::NcclLibrary> nccl_ = FakeNccl();
  const std::shared_ptr<FakeDevice> device_ = std::make_shared<FakeDevice>();
  std::unique_ptr<lanes::NcclHost> nccl_host_;
  lanes::NcclLane* nccl_lane_ = nullptr;
  std::unique_ptr<lanes::FallbackLane> lane_;
};

}  // namespace reprise::testing
