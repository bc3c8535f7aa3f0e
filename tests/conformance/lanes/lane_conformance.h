// What every lane promises (cluster/lanes/lane.h), as one suite. A backend's test includes this
// header and instantiates LaneConformance with a factory that makes a lane and the host at its
// other end.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "cluster/lanes/lane.h"
#include "cluster/lanes/lane_status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/lane_ends.h"
#include "tests/support/memory_lane_host.h"

namespace reprise::testing {

class LaneUnderTest {
 public:
  virtual ~LaneUnderTest() = default;
  virtual LaneHostControl& host() = 0;
  virtual lanes::Lane& lane() = 0;
  // False for a lane that calls its host on the caller's own thread and so cannot leave it.
  virtual bool leaves_a_stalled_host() const { return true; }
  // Not empty: the suite's sinks and sources are in device memory, which this reaches.
  virtual CopyBytes device_copy() const { return nullptr; }
};

struct LaneCase {
  std::string name;
  std::function<std::unique_ptr<LaneUnderTest>()> make;
};
inline std::ostream& operator<<(std::ostream& out, const LaneCase& lane) {
  return out << lane.name;
}

class LaneConformance : public ::testing::TestWithParam<LaneCase> {
 protected:
  void SetUp() override {
    under_test_ = GetParam().make();
    ASSERT_NE(under_test_, nullptr);
  }
  LaneHostControl& host() { return under_test_->host(); }
  lanes::Lane& lane() { return under_test_->lane(); }
  CheckingSink Sink(CheckingSink::Options options) const {
    options.copy = under_test_->device_copy();
    return CheckingSink(std::move(options));
  }
  PatternSource Source(uint64_t seed, std::vector<uint32_t> blocks, uint64_t block_bytes,
                       int64_t fail_at = -1) const {
    return PatternSource(seed, std::move(blocks), block_bytes, fail_at, under_test_->device_copy());
  }
  static absl::Time Soon() { return absl::Now() + absl::Seconds(30); }
  // How a call ends in which nothing moved.
  void ExpectStalled(const absl::Status& status) {
    EXPECT_TRUE(lane().notices_stalls() ? lanes::IsLaneDown(status)
                                        : absl::IsDeadlineExceeded(status))
        << status;
  }

  // Leases `shape`, reads all of it and expects the right bytes in order.
  void ExpectReadable(const LeaseShape& shape) {
    const LeaseId lease = host().Lease(shape);
    CheckingSink sink = Sink({.seed = shape.seed,
                              .first = shape.first_block,
                              .blocks = shape.blocks,
                              .block_bytes = shape.block_bytes});
    const absl::Status status =
        lane().Read({lease, shape.first_block, shape.blocks, shape.block_bytes}, sink, Soon());
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(sink.completed(), Iota(shape.blocks));
    EXPECT_TRUE(sink.all_equal());
  }

  std::unique_ptr<LaneUnderTest> under_test_;
};

TEST_P(LaneConformance, BlocksOfEverySizeArriveWholeAndInOrder) {
  for (const uint64_t bytes : {256ull, 272ull, 4096ull, 4099ull, 65'537ull, 1048575ull, 1048576ull,
                               1048577ull, 2097152ull, 3000001ull, 4194304ull}) {
    SCOPED_TRACE(bytes);
    ExpectReadable({.seed = bytes, .blocks = bytes < 100'000 ? 37u : 5u, .block_bytes = bytes});
  }
}

TEST_P(LaneConformance, APartOfALeaseIsReadByKeyIndex) {
  const LeaseId lease =
      host().Lease({.seed = 9, .first_block = 10, .blocks = 8, .block_bytes = 5000});
  CheckingSink sink = Sink({.seed = 9, .first = 12, .blocks = 3, .block_bytes = 5000});
  const absl::Status status = lane().Read({lease, 12, 3, 5000}, sink, Soon());
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(sink.completed(), Iota(3));
  EXPECT_TRUE(sink.all_equal());
}

TEST_P(LaneConformance, BlocksOutsideTheLeaseAreOutOfRange) {
  const LeaseId lease = host().Lease({.first_block = 2, .blocks = 4, .block_bytes = 512});
  for (const auto& [first, blocks] : {std::pair{0u, 1u}, {1u, 3u}, {5u, 2u}, {6u, 1u}}) {
    CheckingSink sink = Sink({.first = first, .blocks = blocks, .block_bytes = 512});
    EXPECT_EQ(lane().Read({lease, first, blocks, 512}, sink, Soon()).code(),
              absl::StatusCode::kOutOfRange);
    EXPECT_THAT(sink.completed(), ::testing::IsEmpty());
  }
}

TEST_P(LaneConformance, ALeaseThatIsOverIsNotFound) {
  const LeaseId lease = host().Lease({.block_bytes = 512});
  host().EndLease(lease);
  CheckingSink sink = Sink({.block_bytes = 512});
  EXPECT_EQ(lane().Read({lease, 0, 1, 512}, sink, Soon()).code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(sink.completed(), ::testing::IsEmpty());
  ExpectReadable({.blocks = 2, .block_bytes = 512});
}

TEST_P(LaneConformance, AReservationThatIsOverIsNotFound) {
  const ReservationId reservation = host().Reserve(2, 512);
  host().EndReservation(reservation);
  PatternSource source = Source(1, Iota(2), 512);
  EXPECT_EQ(lane().Write({reservation, Iota(2), 512}, source, Soon()).code(),
            absl::StatusCode::kNotFound);
}

TEST_P(LaneConformance, WhatIsWrittenIsRead) {
  for (const uint64_t bytes : {256ull, 4099ull, 1048577ull, 4194304ull}) {
    SCOPED_TRACE(bytes);
    const uint32_t blocks = bytes < 100'000 ? 19 : 3;
    const ReservationId reservation = host().Reserve(blocks, bytes);
    PatternSource source = Source(bytes, Iota(blocks), bytes);
    const absl::Status written = lane().Write({reservation, Iota(blocks), bytes}, source, Soon());
    ASSERT_TRUE(written.ok()) << written;
    for (uint32_t i = 0; i < blocks; ++i) EXPECT_EQ(host().BytesWritten(reservation, i), bytes);
    CheckingSink sink = Sink({.seed = bytes, .blocks = blocks, .block_bytes = bytes});
    const absl::Status read =
        lane().Read({host().LeaseWritten(reservation), 0, blocks, bytes}, sink, Soon());
    ASSERT_TRUE(read.ok()) << read;
    EXPECT_EQ(sink.completed(), Iota(blocks));
    EXPECT_TRUE(sink.all_equal());
  }
}

TEST_P(LaneConformance, BlocksAreWrittenByKeyIndexAndOthersStayUntouched) {
  const ReservationId reservation = host().Reserve(6, 777);
  const std::vector<uint32_t> blocks = {1, 4, 5};
  PatternSource source = Source(3, blocks, 777);
  const absl::Status status = lane().Write({reservation, blocks, 777}, source, Soon());
  ASSERT_TRUE(status.ok()) << status;
  for (uint32_t i = 0; i < 6; ++i) {
    EXPECT_EQ(host().BytesWritten(reservation, i), i == 1 || i >= 4 ? 777u : 0u) << i;
  }
  CheckingSink sink = Sink({.seed = 3, .first = 4, .blocks = 2, .block_bytes = 777});
  ASSERT_TRUE(lane().Read({host().LeaseWritten(reservation), 4, 2, 777}, sink, Soon()).ok());
  EXPECT_TRUE(sink.all_equal());
}

TEST_P(LaneConformance, ASinkThatRefusesEndsTheReadWithItsOwnStatus) {
  const LeaseId lease = host().Lease({.seed = 4, .blocks = 12, .block_bytes = 70'000});
  CheckingSink sink = Sink({.seed = 4, .blocks = 12, .block_bytes = 70'000, .fail_at = 5});
  const absl::Status status = lane().Read({lease, 0, 12, 70'000}, sink, Soon());
  sink.Revoke();
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted) << status;
  EXPECT_EQ(status.message(), "the sink has had enough");
  EXPECT_EQ(sink.completed(), Iota(5));
  EXPECT_TRUE(sink.all_equal());
  ExpectReadable({.seed = 5, .blocks = 12, .block_bytes = 70'000});
}

TEST_P(LaneConformance, ASourceThatFailsLeavesTheBlocksBeforeItWrittenAndNoneAfter) {
  const ReservationId reservation = host().Reserve(6, 5000);
  PatternSource source = Source(6, Iota(6), 5000, /*fail_at=*/3);
  const absl::Status status = lane().Write({reservation, Iota(6), 5000}, source, Soon());
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted) << status;
  EXPECT_EQ(status.message(), "the source has run dry");
  for (uint32_t i = 0; i < 6; ++i)
    EXPECT_EQ(host().BytesWritten(reservation, i), i < 3 ? 5000u : 0u) << i;
}

TEST_P(LaneConformance, ABlockThatCannotBeWrittenEndsTheWriteThere) {
  const ReservationId reservation = host().Reserve(5, 3000);
  host().RefuseWrites(reservation, 2);
  PatternSource source = Source(6, Iota(5), 3000);
  const absl::Status status = lane().Write({reservation, Iota(5), 3000}, source, Soon());
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  for (uint32_t i = 0; i < 5; ++i)
    EXPECT_EQ(host().BytesWritten(reservation, i), i < 2 ? 3000u : 0u) << i;
}

TEST_P(LaneConformance, ABlockOfAnotherSizeThanTheSlotIsRefused) {
  const LeaseId lease = host().Lease({.blocks = 2, .block_bytes = 4096});
  for (const uint64_t bytes : {4095ull, 4097ull, 8192ull}) {
    CheckingSink sink = Sink({.blocks = 2, .block_bytes = bytes});
    EXPECT_FALSE(lane().Read({lease, 0, 2, bytes}, sink, Soon()).ok()) << bytes;
    EXPECT_THAT(sink.completed(), ::testing::IsEmpty()) << bytes;
  }
}

TEST_P(LaneConformance, ADeadlineThatIsOverMovesNothing) {
  const LeaseId lease = host().Lease({.blocks = 2, .block_bytes = 4096});
  CheckingSink sink = Sink({.blocks = 2, .block_bytes = 4096});
  EXPECT_EQ(lane().Read({lease, 0, 2, 4096}, sink, absl::Now() - absl::Seconds(1)).code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(sink.completed(), ::testing::IsEmpty());
  const ReservationId reservation = host().Reserve(1, 4096);
  PatternSource source = Source(1, Iota(1), 4096);
  EXPECT_EQ(lane().Write({reservation, Iota(1), 4096}, source, absl::InfinitePast()).code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(host().BytesWritten(reservation, 0), 0u);
}

// The stall ends only after the call has returned: that it returns at all is the claim.
TEST_P(LaneConformance, AReadReturnsByItsDeadlineWhenTheHostStallsAndTouchesNothingLater) {
  if (!under_test_->leaves_a_stalled_host()) {
    GTEST_SKIP() << "SKIPPED: this lane runs its host on the caller's thread";
  }
  const LeaseId lease = host().Lease({.seed = 7, .blocks = 3, .block_bytes = 100'000});
  CheckingSink sink = Sink({.seed = 7, .blocks = 3, .block_bytes = 100'000});
  host().Stall();
  const absl::Status status =
      lane().Read({lease, 0, 3, 100'000}, sink, absl::Now() + absl::Milliseconds(150));
  sink.Revoke();
  host().Unstall();
  ExpectStalled(status);
  EXPECT_THAT(sink.completed(), ::testing::IsEmpty());
  ExpectReadable({.seed = 8, .blocks = 3, .block_bytes = 100'000});
  EXPECT_TRUE(host().AwaitNoPins(absl::Seconds(30)));
}

// A sink that takes its time: as long as there is something to hand over nothing is waited for, and
// the deadline holds all the same.
class SlowSink final : public lanes::BlockSink {
 public:
  SlowSink(uint64_t block_bytes, absl::Duration pause) : buffer_(block_bytes), pause_(pause) {}
  std::span<uint8_t> Buffer(uint32_t) override { return buffer_; }
  absl::Status Complete(uint32_t) override { return Take(); }
  absl::Status Deliver(uint32_t, std::span<const uint8_t>) override { return Take(); }
  uint32_t completed() const { return completed_; }

 private:
  absl::Status Take() {
    absl::SleepFor(pause_);
    ++completed_;
    return absl::OkStatus();
  }
  std::vector<uint8_t> buffer_;
  const absl::Duration pause_;
  uint32_t completed_ = 0;
};

TEST_P(LaneConformance, AReadReturnsByItsDeadlineWhenTheSinkIsSlow) {
  if (!under_test_->leaves_a_stalled_host()) {
    GTEST_SKIP() << "SKIPPED: this lane runs its host on the caller's thread";
  }
  constexpr uint32_t kBlocks = 400;
  const LeaseId lease = host().Lease({.blocks = kBlocks, .block_bytes = 4096});
  SlowSink sink(4096, absl::Milliseconds(5));
  const absl::Status status =
      lane().Read({lease, 0, kBlocks, 4096}, sink, absl::Now() + absl::Milliseconds(200));
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_LT(sink.completed(), kBlocks);
  EXPECT_TRUE(host().AwaitNoPins(absl::Seconds(30)));
}

TEST_P(LaneConformance, AWriteReturnsByItsDeadlineWhenTheHostStalls) {
  if (!under_test_->leaves_a_stalled_host()) {
    GTEST_SKIP() << "SKIPPED: this lane runs its host on the caller's thread";
  }
  const ReservationId reservation = host().Reserve(2, 9000);
  PatternSource source = Source(1, Iota(2), 9000);
  host().Stall();
  const absl::Status status =
      lane().Write({reservation, Iota(2), 9000}, source, absl::Now() + absl::Milliseconds(150));
  host().Unstall();
  ExpectStalled(status);
  ExpectReadable({.seed = 8, .blocks = 3, .block_bytes = 9000});
  EXPECT_TRUE(host().AwaitNoPins(absl::Seconds(30)));
}

TEST_P(LaneConformance, NoPinOutlivesItsCall) {
  ExpectReadable({.seed = 2, .blocks = 9, .block_bytes = 5000});
  const ReservationId reservation = host().Reserve(4, 5000);
  PatternSource source = Source(6, Iota(4), 5000, /*fail_at=*/2);
  EXPECT_FALSE(lane().Write({reservation, Iota(4), 5000}, source, Soon()).ok());
  const LeaseId lease = host().Lease({.blocks = 4, .block_bytes = 5000});
  CheckingSink sink = Sink({.blocks = 4, .block_bytes = 5000, .fail_at = 1});
  EXPECT_FALSE(lane().Read({lease, 0, 4, 5000}, sink, Soon()).ok());
  EXPECT_TRUE(host().AwaitNoPins(absl::Seconds(30)));
}

TEST_P(LaneConformance, CallsRunInParallel) {
  constexpr int kThreads = 6;
  constexpr uint32_t kRounds = 8;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([this, t] {
      for (uint32_t round = 0; round < kRounds; ++round) {
        const uint64_t seed = 1000 * t + round;
        const uint64_t bytes = 3000 + 7 * seed;
        if (t % 2 == 0) {
          ExpectReadable({.seed = seed, .blocks = 9, .block_bytes = bytes});
          continue;
        }
        const ReservationId reservation = host().Reserve(5, bytes);
        PatternSource source = Source(seed, Iota(5), bytes);
        const absl::Status written = lane().Write({reservation, Iota(5), bytes}, source, Soon());
        EXPECT_TRUE(written.ok()) << written;
        CheckingSink sink = Sink({.seed = seed, .blocks = 5, .block_bytes = bytes});
        EXPECT_TRUE(
            lane().Read({host().LeaseWritten(reservation), 0, 5, bytes}, sink, Soon()).ok());
        EXPECT_TRUE(sink.all_equal());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(host().AwaitNoPins(absl::Seconds(30)));
}

inline std::string LaneCaseName(const ::testing::TestParamInfo<LaneCase>& info) {
  return info.param.name;
}

}  // namespace reprise::testing
