// A whole NCCL lane over the fake libnccl: a shard's end, a caller's end, the calls between them on
// threads of their own (as an RPC would be), and a view lane to fall back to.
#pragma once

#include <atomic>
#include <functional>
#include <list>
#include <memory>
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

 private:
  template <typename Answer>
  Answer Await(lanes::MonotonicDeadline deadline, std::function<Answer()> call) {
    struct State {
      absl::Mutex mu;
      bool done = false;
      Answer answer = absl::DeadlineExceededError("no answer");
    };
    auto state = std::make_shared<State>();
    {
      absl::MutexLock lock(&mu_);
      threads_.emplace_back([state, call = std::move(call)] {
        Answer answer = call();
        absl::MutexLock lock(&state->mu);
        state->answer = std::move(answer);
        state->done = true;
      });
    }
    absl::MutexLock lock(&state->mu);
    state->mu.AwaitWithTimeout(absl::Condition(&state->done), deadline.left());
    return state->answer;
  }

  lanes::NcclHost* const host_;
  const AttachmentId attachment_;
  absl::Mutex mu_;
  std::list<std::thread> threads_;
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
    // How the caller's end reaches the shard's; empty: ThreadedControl.
    std::function<std::shared_ptr<lanes::NcclControl>(lanes::NcclHost*)> control;
  };
  static constexpr AttachmentId kAttachment{0x1234};

  NcclRig() : NcclRig(Options()) {}
  explicit NcclRig(Options options)
      : host_(kAttachment, [this](uint64_t bytes) { return extents_.Allocate(bytes); }),
        view_(*lanes::ViewServer::Create({.host = &host_, .exporter = &extents_})),
        nccl_host_(std::make_unique<lanes::NcclHost>(lanes::NcclHost::Options{
            .host = &nccl_view_, .nccl = nccl_, .device = device_, .state = options.state})) {
    auto nccl = std::make_unique<lanes::NcclLane>(lanes::NcclLane::Options{
        .nccl = nccl_,
        .device = device_,
        .control = options.control
                       ? options.control(nccl_host_.get())
                       : std::make_shared<ThreadedControl>(nccl_host_.get(), kAttachment),
        .cap = options.cap,
        .landing_bytes = options.landing_bytes,
        .state = options.state});
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
