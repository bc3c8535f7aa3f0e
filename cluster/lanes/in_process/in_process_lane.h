// The lane for a caller inside the shard's own process: calls the shard's end directly, on the
// caller's thread. Embedded caches and tests use it; it is also the shortest statement of what a
// lane does.
//
// Invariants: blocks are delivered in place, never copied. A host that does not return cannot be
// left, so the deadline is read between blocks only. Thread safety: calls may run in parallel.
#pragma once

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cluster/lanes/lane.h"

namespace reprise::lanes {

class InProcessLane final : public Lane {
 public:
  // REQUIRES: `host` outlives the lane.
  InProcessLane(LaneHost* host, AttachmentId attachment) : host_(host), attachment_(attachment) {}

  LaneKind kind() const override { return LaneKind::kInProcess; }
  absl::Status Read(const ReadJob& job, BlockSink& sink, absl::Time deadline) override;
  absl::Status Write(const WriteJob& job, BlockSource& source, absl::Time deadline) override;

 private:
  LaneHost* const host_;
  const AttachmentId attachment_;
};

}  // namespace reprise::lanes
