// The caller's end of the NCCL lane: blocks arrive in device memory of the lane's own, where sinks
// read them, and leave from it; NCCL never touches memory of the caller.
//
// Invariants: the link is made and rebuilt in the background, the first call wants it and goes by
// another lane (LANE_DOWN); one call at a time uses the link, others wait; a call that cannot be
// finished by its deadline breaks the link, so that both ends forget its group. Why its own memory:
// an abort may hang with a dead peer, and until it returns NCCL may write. A slot can stay pinned
// for that long, the caller's memory cannot. A sink that scatters does so from here: no copy more.
// Thread safety: calls may run in parallel.
#pragma once

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "cluster/lanes/lane.h"
#include "cluster/lanes/nccl/nccl_control.h"
#include "cluster/lanes/nccl/nccl_link.h"

namespace reprise::lanes {

class NcclLane final : public Lane {
 public:
  struct Options {
    std::shared_ptr<const NcclLibrary> nccl;
    NcclDevice* device = nullptr;  // REQUIRES: outlives the lane, and a link that is stuck
    std::shared_ptr<NcclControl> control;
    uint64_t landing_bytes = limits::kNcclLandingBytes;  // at least one block
    LinkState::Options state;
    absl::Duration stop_grace = limits::kNcclStopGrace;
  };

  // RESOURCE_EXHAUSTED when the device has no memory for the lane.
  static absl::StatusOr<std::unique_ptr<NcclLane>> Create(Options options);
  ~NcclLane() override;

  LaneKind kind() const override { return LaneKind::kNccl; }
  absl::Status Read(const ReadJob& job, BlockSink& sink, absl::Time deadline) override;
  absl::Status Write(const WriteJob& job, BlockSource& source, absl::Time deadline) override;

  NcclLinkState link_state() const { return link_->state(); }
  // Makes the link ahead of the first use.
  void Prepare() { link_->Want(); }

 private:
  class Turn;
  struct Session;

  NcclLane(Options options, std::shared_ptr<DeviceMemory> landing);
  absl::StatusOr<uint32_t> BlocksPerGroup(uint64_t block_bytes) const;
  absl::StatusOr<NcclOpened> Open(NcclOpenCall& call, MonotonicDeadline deadline);
  absl::Status Run(NcclGroup group, MonotonicDeadline deadline);
  absl::Status Break(const absl::Status& why);
  absl::Status ReadGroup(const ReadJob& job, uint32_t done, uint32_t count,
                         MonotonicDeadline deadline);
  absl::Status DeliverGroup(BlockSink& sink, uint32_t first, uint32_t count, uint64_t block_bytes,
                            MonotonicDeadline deadline);
  uint32_t FillGroup(BlockSource& source, uint32_t first, uint32_t count, uint64_t block_bytes,
                     absl::Status& status);
  absl::Status WriteGroup(NcclOpenCall call, MonotonicDeadline deadline);
  std::span<uint8_t> Landing(uint32_t i, uint64_t block_bytes) const;

  const Options options_;
  const std::shared_ptr<DeviceMemory> landing_;
  const std::shared_ptr<Session> session_;
  mutable absl::Mutex mu_;
  bool busy_ ABSL_GUARDED_BY(mu_) = false;
  std::unique_ptr<NcclLink> link_;
};

}  // namespace reprise::lanes
