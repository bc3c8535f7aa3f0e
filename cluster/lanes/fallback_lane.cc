#include "cluster/lanes/fallback_lane.h"

#include <utility>

#include "absl/time/clock.h"
#include "cluster/lanes/lane_status.h"
#include "proto/types/clock.h"
#include "proto/types/limits.h"
#include "proto/types/status_macros.h"

namespace reprise::lanes {
namespace {

// The rest of a sink, from block `base` on.
class RestOfSink final : public BlockSink {
 public:
  RestOfSink(BlockSink& sink, uint32_t base, LaneKind kind, std::atomic<LaneKind>& carrying)
      : sink_(sink), base_(base), kind_(kind), carrying_(carrying) {}
  MemoryKind memory() const override { return sink_.memory(); }
  int device() const override { return sink_.device(); }
  std::span<uint8_t> Buffer(uint32_t i) override { return sink_.Buffer(base_ + i); }
  void CarriedBy(LaneKind kind) override { sink_.CarriedBy(kind); }
  absl::Status Complete(uint32_t i) override {
    Carry();
    return Count(sink_.Complete(base_ + i), 1);
  }
  absl::Status Deliver(uint32_t i, std::span<const uint8_t> bytes) override {
    Carry();
    return Count(sink_.Deliver(base_ + i, bytes), 1);
  }
  absl::Status DeliverDevice(uint32_t first,
                             std::span<const std::span<const uint8_t>> blocks) override {
    Carry();
    return Count(sink_.DeliverDevice(base_ + first, blocks), static_cast<uint32_t>(blocks.size()));
  }
  absl::Status DeliverPinned(uint32_t first,
                             std::span<const std::span<const uint8_t>> blocks) override {
    Carry();
    return Count(sink_.DeliverPinned(base_ + first, blocks), static_cast<uint32_t>(blocks.size()));
  }
  uint32_t completed() const { return completed_; }
  bool refused() const { return refused_; }

 private:
  void Carry() {
    carrying_.store(kind_, std::memory_order_relaxed);
    sink_.CarriedBy(kind_);
  }
  absl::Status Count(absl::Status status, uint32_t blocks) {
    status.ok() ? static_cast<void>(completed_ += blocks) : static_cast<void>(refused_ = true);
    return status;
  }

  BlockSink& sink_;
  const uint32_t base_;
  const LaneKind kind_;
  std::atomic<LaneKind>& carrying_;
  uint32_t completed_ = 0;
  bool refused_ = false;
};

// The rest of a source. A block counts as begun when it was asked for; since a lane may read ahead
// of what it has written, a write that goes on by another lane starts over from the first block:
// writing a block again is harmless before Commit.
class RetriedSource final : public BlockSource {
 public:
  explicit RetriedSource(BlockSource& source) : source_(source) {}
  MemoryKind memory() const override { return source_.memory(); }
  int device() const override { return source_.device(); }
  absl::StatusOr<std::span<const uint8_t>> Bytes(uint32_t i) override {
    absl::StatusOr<std::span<const uint8_t>> bytes = source_.Bytes(i);
    if (!bytes.ok()) refusal_ = bytes.status();
    return bytes;
  }
  absl::Status Fill(uint32_t i, std::span<uint8_t> slot) override {
    absl::Status status = source_.Fill(i, slot);
    if (!status.ok()) refusal_ = status;
    return status;
  }
  absl::Status FillDevice(uint32_t first, std::span<const std::span<uint8_t>> slots) override {
    absl::Status status = source_.FillDevice(first, slots);
    if (!status.ok()) refusal_ = status;
    return status;
  }
  absl::Status FillPinned(uint32_t first, std::span<const std::span<uint8_t>> slots) override {
    absl::Status status = source_.FillPinned(first, slots);
    if (!status.ok()) refusal_ = status;
    return status;
  }
  std::vector<PinnedBytes> Pinned(uint32_t first, uint32_t blocks) override {
    return source_.Pinned(first, blocks);
  }
  // OK: the source gave all that it was asked for.
  const absl::Status& refusal() const { return refusal_; }

 private:
  BlockSource& source_;
  absl::Status refusal_;
};

absl::Time ShareOf(absl::Time deadline, bool all) {
  if (all || deadline == absl::InfiniteFuture()) return deadline;
  const absl::Time now = absl::Now();
  return now + (deadline - now) * limits::kLaneDeadlineShare;
}

// Whether another lane may do better.
bool GoesOn(const absl::Status& status, absl::Time deadline) {
  return IsLaneDown(status) || (absl::IsDeadlineExceeded(status) && absl::Now() < deadline);
}

}  // namespace

class FallbackLane::Timed {
 public:
  Timed(FallbackLane& lane, LaneKind kind)
      : lane_(lane),
        kind_(kind),
        under_way_(lane.under_way_[static_cast<size_t>(kind)]),
        before_(under_way_.fetch_add(1, std::memory_order_relaxed) + 1),
        started_(MonotonicClock().Now()) {}
  ~Timed() { under_way_.fetch_sub(1, std::memory_order_relaxed); }

  void Moved(uint64_t bytes, MemoryKind caller) {
    const absl::Time now = MonotonicClock().Now();
    const absl::Duration part =
        OwnPart(now - started_, before_, under_way_.load(std::memory_order_relaxed));
    absl::MutexLock lock(&lane_.mu_);
    lane_.meters_[static_cast<size_t>(caller)].Add(kind_, bytes, part, now);
  }

 private:
  FallbackLane& lane_;
  const LaneKind kind_;
  std::atomic<int>& under_way_;
  const int before_;  // calls of this lane when this one began, itself included
  const absl::Time started_;
};

FallbackLane::FallbackLane(std::vector<std::unique_ptr<Lane>> best_first, Order order)
    : lanes_(std::move(best_first)), order_(std::move(order)), carrying_(LaneKind::kStream) {
  REPRISE_CHECK(!lanes_.empty());
  carrying_ = lanes_.front()->kind();
}

uint32_t FallbackLane::flows() const {
  const LaneKind carrying = kind();
  for (const std::unique_ptr<Lane>& lane : lanes_) {
    if (lane->kind() == carrying) return lane->flows();
  }
  return 1;
}

std::vector<Lane*> FallbackLane::OrderFor(const LaneJob& job) const {
  std::vector<Lane*> ordered;
  if (order_) {
    for (const LaneKind kind : order_(job, rates(job.caller))) {
      for (const std::unique_ptr<Lane>& lane : lanes_) {
        if (lane->kind() == kind) ordered.push_back(lane.get());
      }
    }
  }
  if (ordered.empty()) {
    for (const std::unique_ptr<Lane>& lane : lanes_) ordered.push_back(lane.get());
  }
  return ordered;
}

absl::Status FallbackLane::Read(const ReadJob& job, BlockSink& sink, absl::Time deadline) {
  ReadJob rest = job;
  absl::Status status;
  const std::vector<Lane*> lanes =
      OrderFor({.bytes = job.blocks * job.block_bytes, .caller = sink.memory()});
  for (Lane* const lane : lanes) {
    RestOfSink rest_of_sink(sink, job.blocks - rest.blocks, lane->kind(), carrying_);
    Timed timed(*this, lane->kind());
    status = lane->Read(rest, rest_of_sink,
                        ShareOf(deadline, lane == lanes.back() || lane->notices_stalls()));
    Count(lane->kind(), rest_of_sink.completed());
    if (status.ok()) timed.Moved(rest_of_sink.completed() * job.block_bytes, sink.memory());
    rest.first += rest_of_sink.completed();
    rest.blocks -= rest_of_sink.completed();
    if (rest.blocks == 0 || rest_of_sink.refused() || !GoesOn(status, deadline)) return status;
  }
  return status;
}

absl::Status FallbackLane::Write(const WriteJob& job, BlockSource& source, absl::Time deadline) {
  absl::Status status;
  const auto blocks = static_cast<uint32_t>(job.blocks.size());
  const std::vector<Lane*> lanes =
      OrderFor({.bytes = blocks * job.block_bytes, .caller = source.memory()});
  for (Lane* const lane : lanes) {
    RetriedSource retried(source);
    Timed timed(*this, lane->kind());
    status = lane->Write(job, retried,
                         ShareOf(deadline, lane == lanes.back() || lane->notices_stalls()));
    if (status.ok()) {
      Count(lane->kind(), blocks);
      timed.Moved(blocks * job.block_bytes, source.memory());
    }
    // A lane that failed before it had written what came before the source's refusal has a
    // successor.
    if (status == retried.refusal() || !GoesOn(status, deadline)) return status;
  }
  return status;
}

uint64_t FallbackLane::BlocksServed(LaneKind kind) const {
  return blocks_served_[static_cast<size_t>(kind)].load(std::memory_order_relaxed);
}

LaneRates FallbackLane::rates(MemoryKind caller) const {
  absl::MutexLock lock(&mu_);
  return meters_[static_cast<size_t>(caller)].At(MonotonicClock().Now());
}

void FallbackLane::Count(LaneKind kind, uint32_t blocks) {
  if (blocks == 0) return;
  carrying_.store(kind, std::memory_order_relaxed);
  blocks_served_[static_cast<size_t>(kind)].fetch_add(blocks, std::memory_order_relaxed);
}

}  // namespace reprise::lanes
