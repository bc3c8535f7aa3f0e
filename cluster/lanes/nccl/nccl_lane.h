// The caller's end of the NCCL lane: blocks arrive in device memory of the lane's own, where sinks
// read them. They leave from where they lie, when their source can pin them there, and from that
// memory otherwise; NCCL never touches memory that its owner could take away.
//
// Invariants: the link is made and rebuilt in the background, the first call wants it and goes by
// another lane (LANE_DOWN); one call at a time uses the link, others wait while that one is in time
// and go by another lane when it is late; a call that cannot be finished by its deadline breaks the
// link, so that both ends forget its group; a shard that refuses a call because it has too much to
// do keeps its link, and the call goes by another lane; a lane whose link is closed holds no device
// memory. Why its own memory: an abort may hang with a dead peer, and until it returns NCCL may
// write. A slot can stay pinned for that long, the caller's memory cannot. A sink that scatters
// does so from here: no copy more. Thread safety: calls may run in parallel.
#pragma once

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "cluster/lanes/lane_rates.h"
#include "cluster/lanes/linked_lane.h"
#include "cluster/lanes/nccl/link_cap.h"
#include "cluster/lanes/nccl/nccl_control.h"
#include "cluster/lanes/nccl/nccl_link.h"

namespace reprise::lanes {

class NcclLane final : public LinkedLane {
 public:
  struct Options {
    std::shared_ptr<const NcclLibrary> nccl;
    std::shared_ptr<NcclDevice> device;
    std::shared_ptr<NcclControl> control;
    std::shared_ptr<LinkCap> cap;                        // nullptr: none
    uint64_t landing_bytes = limits::kNcclLandingBytes;  // at least one block
    LinkState::Options state;
    absl::Duration stop_grace = limits::kNcclStopGrace;
  };

  explicit NcclLane(Options options);
  ~NcclLane() override;

  LaneKind kind() const override { return LaneKind::kNccl; }
  absl::Status Read(const ReadJob& job, BlockSink& sink, absl::Time deadline) override;
  absl::Status Write(const WriteJob& job, BlockSource& source, absl::Time deadline) override;

  NcclLinkState link_state() const override { return link_->state(); }
  void Prepare() override { link_->Want(); }
  std::function<void()> Closer() const override { return link_->Closer(); }

 private:
  class Turn;
  struct Session;
  struct Outgoing;

  // Whether kernels on GPU `device` reach the landing memory, if it is on a GPU.
  bool Reaches(int device) const {
    return options_.device->memory() == MemoryKind::kHost || device == options_.device->index();
  }
  // What a call that moves `bytes` has before it counts as late.
  absl::Duration TimeFor(uint64_t bytes) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  absl::StatusOr<NcclOpened> Open(NcclOpenCall& call, MonotonicDeadline deadline);
  absl::Status Run(NcclLinkId link, NcclGroup group, std::shared_ptr<const void> keep,
                   MonotonicDeadline deadline);
  // Ends `link`, unless another one has taken its place. Returns `why`.
  absl::Status Break(NcclLinkId link, const absl::Status& why);
  absl::Status ReadGroup(const ReadJob& job, uint32_t done, uint32_t count, const Turn& turn,
                         MonotonicDeadline deadline);
  Outgoing Gather(BlockSource& source, uint32_t first, uint32_t blocks, uint64_t block_bytes,
                  Turn& turn);
  absl::Status WriteGroup(NcclOpenCall call, Outgoing outgoing, MonotonicDeadline deadline);
  absl::Status Finish(const NcclOpenCall& call, MonotonicDeadline deadline);

  const Options options_;
  const std::shared_ptr<Session> session_;
  mutable absl::Mutex mu_;
  bool busy_ ABSL_GUARDED_BY(mu_) = false;
  absl::Time due_ ABSL_GUARDED_BY(mu_);  // when the call that has the link should be done
  RateMeter rate_ ABSL_GUARDED_BY(mu_);  // of calls that were
  std::unique_ptr<NcclLink> link_;
};

}  // namespace reprise::lanes
