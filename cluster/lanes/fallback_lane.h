// Several lanes to one shard as one: the first that works carries a job, and what it leaves undone
// goes on by the next one from the first block that was not completed.
//
// Invariants: only a lane's own failure (LANE_DOWN, or its share of the deadline) leads to the next
// lane; a refusal by the shard, the sink or the source ends the job at once. The sink sees each
// block completed once, in order. Thread safety: calls may run in parallel.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cluster/lanes/lane.h"

namespace reprise::lanes {

class FallbackLane final : public Lane {
 public:
  // REQUIRES: at least one lane. The last one gets all the time that is left, every earlier one
  // limits::kLaneDeadlineShare of it.
  explicit FallbackLane(std::vector<std::unique_ptr<Lane>> best_first);

  // The kind that carries the latest block, also while its sink is asked; the first lane's before
  // any was.
  LaneKind kind() const override { return carrying_.load(std::memory_order_relaxed); }
  absl::Status Read(const ReadJob& job, BlockSink& sink, absl::Time deadline) override;
  absl::Status Write(const WriteJob& job, BlockSource& source, absl::Time deadline) override;

  // Blocks that lanes of this kind completed, both ways.
  uint64_t BlocksServed(LaneKind kind) const;

 private:
  void Count(LaneKind kind, uint32_t blocks);

  const std::vector<std::unique_ptr<Lane>> lanes_;
  std::atomic<LaneKind> carrying_;
  std::array<std::atomic<uint64_t>, 4> blocks_served_{};  // by LaneKind
};

}  // namespace reprise::lanes
