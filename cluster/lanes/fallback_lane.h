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
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "cluster/lanes/lane.h"
#include "cluster/lanes/lane_rates.h"

namespace reprise::lanes {

// What is about to move, as an order of lanes is asked for it.
struct LaneJob {
  uint64_t bytes = 0;
  MemoryKind caller = MemoryKind::kHost;
};

class FallbackLane final : public Lane {
 public:
  // The kinds to use for a job, best first; a kind that is not named is not used for it. Called
  // from any thread.
  using Order = std::function<std::vector<LaneKind>(const LaneJob& job, const LaneRates& rates)>;

  // REQUIRES: at least one lane, of different kinds. The last one gets all the time that is left,
  // and so does one that notices by itself that nothing moves; every other one
  // limits::kLaneDeadlineShare of it. Without an order, or when it names none of the lanes, they
  // are used as they come.
  explicit FallbackLane(std::vector<std::unique_ptr<Lane>> best_first, Order order = nullptr);

  // The kind that carries the latest block, also while its sink is asked; the first lane's before
  // any was.
  LaneKind kind() const override { return carrying_.load(std::memory_order_relaxed); }
  // That lane's.
  uint32_t flows() const override;
  absl::Status Read(const ReadJob& job, BlockSink& sink, absl::Time deadline) override;
  absl::Status Write(const WriteJob& job, BlockSource& source, absl::Time deadline) override;

  // Blocks that lanes of this kind completed, both ways.
  uint64_t BlocksServed(LaneKind kind) const;
  // What they carry to and from callers' memory of this kind, the callers' own work on the blocks
  // included. Jobs that failed tell no rate.
  LaneRates rates(MemoryKind caller) const;

 private:
  std::vector<Lane*> OrderFor(const LaneJob& job) const;
  void Count(LaneKind kind, uint32_t blocks);
  // One call of a lane, and how many of that lane's were under way beside it: together they show
  // what the lane carries.
  class Timed;

  const std::vector<std::unique_ptr<Lane>> lanes_;
  const Order order_;
  mutable absl::Mutex mu_;
  std::array<RateMeter, 2> meters_ ABSL_GUARDED_BY(mu_);  // by MemoryKind of the caller
  std::atomic<LaneKind> carrying_;
  std::array<std::atomic<uint64_t>, kLaneKinds> blocks_served_{};  // by LaneKind
  std::array<std::atomic<int>, kLaneKinds> under_way_{};           // by LaneKind
};

}  // namespace reprise::lanes
