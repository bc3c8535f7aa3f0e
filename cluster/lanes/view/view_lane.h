// The caller's end of the view lane: on the shard's own machine, sinks read leased blocks and
// sources fill reserved slots where they lie. One message each way per call (a write tells once
// more when it is done), none per block.
//
// Invariants: blocks of one call stay pinned at the shard until the call is over; when the socket
// cannot be reached or says nonsense, every call is UNAVAILABLE (LANE_DOWN) at once, and it is
// tried again after limits::kViewRetryAfter. Thread safety: calls may run in parallel, up to
// limits::kViewConnectionsPerLaneMax at one time; others wait.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "cluster/lanes/lane.h"
#include "cluster/lanes/view/extent_map.h"
#include "cluster/lanes/view/view_socket.h"

namespace reprise::lanes {

class ViewLane final : public Lane {
 public:
  struct Options {
    std::string socket;  // ViewServer::address() of the shard
    AttachmentId attachment;
  };

  // UNAVAILABLE (LANE_DOWN) when the shard's socket is out of reach: another machine, another
  // network namespace, another user.
  static absl::StatusOr<std::unique_ptr<ViewLane>> Connect(Options options, absl::Time deadline);

  LaneKind kind() const override { return LaneKind::kView; }
  absl::Status Read(const ReadJob& job, BlockSink& sink, absl::Time deadline) override;
  absl::Status Write(const WriteJob& job, BlockSource& source, absl::Time deadline) override;

 private:
  class Conversation;

  explicit ViewLane(Options options) : options_(std::move(options)) {}
  absl::StatusOr<view::ViewSocket> Dial(MonotonicDeadline deadline);
  absl::StatusOr<view::ViewSocket> Borrow(MonotonicDeadline deadline);
  void GiveBack(view::ViewSocket* healthy);
  bool MayBorrow() const ABSL_SHARED_LOCKS_REQUIRED(mu_);

  const Options options_;
  view::ExtentMap extents_;
  mutable absl::Mutex mu_;
  std::vector<view::ViewSocket> idle_ ABSL_GUARDED_BY(mu_);
  size_t borrowed_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Time retry_at_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();  // on MonotonicClock()
};

}  // namespace reprise::lanes
