// What the tests of NCCL's failures share: a rig, blocks that are checked as a worker's checksum
// would, and a look at what is left behind.
//
// Thread safety: one thread, but Read and Write, which may run in parallel.
#pragma once

#include <dirent.h>

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cluster/lanes/in_process/in_process_lane.h"
#include "cluster/lanes/lane_status.h"
#include "gtest/gtest.h"
#include "tests/support/fake_nccl/nccl_rig.h"

namespace reprise::testing {

inline constexpr uint64_t kBlockBytes = 200'000;
inline constexpr uint32_t kBlocks = 7;
inline constexpr absl::Duration kMargin = absl::Seconds(4);  // a call may be late, never by this

inline absl::Time In(absl::Duration time) {
  return absl::Now() + time;
}

inline size_t Threads() {
  size_t threads = 0;
  DIR* tasks = ::opendir("/proc/self/task");
  while (const dirent* entry = ::readdir(tasks)) threads += entry->d_name[0] != '.';
  ::closedir(tasks);
  return threads;
}

// A worker's sink: bytes that are wrong are refused, as its checksum would.
class VerifyingSink final : public lanes::BlockSink {
 public:
  explicit VerifyingSink(uint64_t seed) : seed_(seed) {}
  std::span<uint8_t> Buffer(uint32_t) override {
    buffer_.resize(kBlockBytes);
    return buffer_;
  }
  absl::Status Complete(uint32_t i) override { return Deliver(i, buffer_); }
  absl::Status Deliver(uint32_t i, std::span<const uint8_t> bytes) override {
    const std::vector<uint8_t> expected = PatternBlock(seed_, i, kBlockBytes);
    if (!std::equal(bytes.begin(), bytes.end(), expected.begin(), expected.end())) {
      return absl::DataLossError("wrong bytes");
    }
    EXPECT_EQ(i, completed_++);
    return absl::OkStatus();
  }
  uint32_t completed() const { return completed_; }

 private:
  const uint64_t seed_;
  uint32_t completed_ = 0;
  std::vector<uint8_t> buffer_;
};

class NcclFault : public ::testing::Test {
 protected:
  void SetUp() override {
    SetNcclFaults("");
    // A sanitizer starts a thread of its own with the first one.
    std::thread([] {}).join();
    threads_before_ = Threads();
  }

  void Start(NcclRig::Options options = NcclRig::Options()) {
    rig_ = std::make_unique<NcclRig>(options);
  }

  absl::Status Read(uint64_t seed, absl::Duration time = absl::Seconds(20)) {
    const LeaseId lease =
        rig_->host().Lease({.seed = seed, .blocks = kBlocks, .block_bytes = kBlockBytes});
    VerifyingSink sink(seed);
    const absl::Time started = MonotonicClock().Now();
    const absl::Status status = rig_->lane().Read({lease, 0, kBlocks, kBlockBytes}, sink, In(time));
    ExpectInTime(started, time);
    EXPECT_EQ(status.ok(), sink.completed() == kBlocks);
    rig_->host().EndLease(lease);
    return status;
  }

  // Writes, and reads back beside the lane under test.
  absl::Status Write(uint64_t seed, bool* right, absl::Duration time = absl::Seconds(20)) {
    const ReservationId reservation = rig_->host().Reserve(kBlocks, kBlockBytes);
    PatternSource source(seed, Iota(kBlocks), kBlockBytes);
    const absl::Time started = MonotonicClock().Now();
    const absl::Status status =
        rig_->lane().Write({reservation, Iota(kBlocks), kBlockBytes}, source, In(time));
    ExpectInTime(started, time);
    lanes::InProcessLane beside(&rig_->host(), NcclRig::kAttachment);
    CheckingSink sink({.seed = seed, .blocks = kBlocks, .block_bytes = kBlockBytes});
    const LeaseId written = rig_->host().LeaseWritten(reservation);
    EXPECT_TRUE(beside.Read({written, 0, kBlocks, kBlockBytes}, sink, In(absl::Seconds(20))).ok());
    *right = sink.all_equal();
    return status;
  }

  // A bound against hanging and no claim of speed: a machine may be busy.
  static void ExpectInTime(absl::Time started, absl::Duration time) {
    EXPECT_LT(MonotonicClock().Now() - started, time + kMargin);
  }

  // Everything that NCCL held is given back, and the process has no thread more than before.
  void ExpectNothingLeft() {
    EXPECT_TRUE(rig_->host().AwaitNoPins(absl::Seconds(30)));
    rig_.reset();
    EXPECT_EQ(LiveCommunicators(), 0);
    ExpectNothingRuns();
  }

  // The same of a rig that is gone and left aborts behind, once those are done.
  void ExpectNothingRuns() {
    const auto deadline = lanes::MonotonicDeadline::After(absl::Seconds(30));
    while (LiveCommunicators() > 0 && !deadline.over()) std::this_thread::yield();
    EXPECT_EQ(LiveCommunicators(), 0);
    // The kernel shows a thread a moment longer than it takes to join it, before and after.
    while (Threads() > threads_before_ && !deadline.over()) std::this_thread::yield();
    EXPECT_LE(Threads(), threads_before_);
  }

  // Once the faults are over the link comes back by itself and carries blocks again.
  void ExpectRecovery() {
    SetNcclFaults("");
    rig_->nccl().Prepare();
    ASSERT_TRUE(rig_->AwaitUp());
    // A communicator made while the faults were on may still fail once.
    const auto deadline = lanes::MonotonicDeadline::After(absl::Seconds(30));
    uint64_t before = 0;
    do {
      before = rig_->lane().BlocksServed(LaneKind::kNccl);
      ASSERT_TRUE(rig_->AwaitUp());
      const absl::Status status = Read(99, absl::Seconds(1));
      ASSERT_TRUE(status.ok() || absl::IsDataLoss(status)) << status;
    } while (rig_->lane().BlocksServed(LaneKind::kNccl) < before + kBlocks && !deadline.over());
    EXPECT_EQ(rig_->lane().BlocksServed(LaneKind::kNccl), before + kBlocks);
  }

  std::unique_ptr<NcclRig> rig_;
  size_t threads_before_ = 0;
};

}  // namespace reprise::testing
