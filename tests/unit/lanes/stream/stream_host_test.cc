#include "cluster/lanes/stream/stream_host.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "cluster/lanes/stream/stream_lane.h"
#include "proto/wire/channel.h"
#include "tests/support/forwarding_lane_host.h"
#include "tests/support/lane_ends.h"
#include "tests/support/memory_lane_host.h"
#include "tests/support/stream_lane_server.h"

namespace reprise::testing {
namespace {

constexpr AttachmentId kAttachment{77};
constexpr uint64_t kBlockBytes = 3 << 20;  // three messages
// More than any pool of gRPC's has threads.
constexpr int kHeldUp = 64;

// The blocks of some leases are on a disk, which may hang or fail.
class DiskHost final : public ForwardingLaneHost {
 public:
  explicit DiskHost(lanes::LaneHost& host) : ForwardingLaneHost(host) {}

  void OnDisk(LeaseId lease) {
    absl::MutexLock lock(&mu_);
    on_disk_.push_back(lease);
  }
  void Hang(bool hangs) {
    absl::MutexLock lock(&mu_);
    hangs_ = hangs;
  }
  void FailAfter(int copies) {
    absl::MutexLock lock(&mu_);
    fails_after_ = copies;
  }
  int copies() const {
    absl::MutexLock lock(&mu_);
    return held_up_;
  }
  std::pair<uint64_t, uint64_t> out() const {
    absl::MutexLock lock(&mu_);
    return {blocks_out_, bytes_out_};
  }
  void ReadOut(uint64_t blocks, uint64_t bytes) override {
    absl::MutexLock lock(&mu_);
    blocks_out_ += blocks;
    bytes_out_ += bytes;
  }
  bool AwaitHeldUp(int reads) {
    absl::MutexLock lock(&mu_);
    const auto all = [&] {
      mu_.AssertHeld();
      return held_up_ >= reads;
    };
    return mu_.AwaitWithTimeout(absl::Condition(&all), absl::Seconds(20));
  }

  absl::StatusOr<std::vector<lanes::PinnedBytes>> OpenRead(AttachmentId attachment, LeaseId lease,
                                                           uint32_t first,
                                                           uint32_t blocks) override {
    auto opened = ForwardingLaneHost::OpenRead(attachment, lease, first, blocks);
    absl::MutexLock lock(&mu_);
    const bool on_disk = std::find(on_disk_.begin(), on_disk_.end(), lease) != on_disk_.end();
    if (!opened.ok() || !on_disk) return opened;
    for (lanes::PinnedBytes& block : *opened) block.memory = lanes::MemoryKind::kFile;
    return opened;
  }

  absl::Status CopyToHost(std::span<const uint8_t> from, std::span<uint8_t> to) override {
    absl::MutexLock lock(&mu_);
    ++held_up_;
    const auto goes_on = [this] {
      mu_.AssertHeld();
      return !hangs_;
    };
    mu_.Await(absl::Condition(&goes_on));
    if (fails_after_-- == 0) return absl::InternalError("the disk failed");
    std::copy(from.begin(), from.end(), to.begin());
    return absl::OkStatus();
  }

 private:
  mutable absl::Mutex mu_;
  uint64_t blocks_out_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t bytes_out_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<LeaseId> on_disk_ ABSL_GUARDED_BY(mu_);
  bool hangs_ ABSL_GUARDED_BY(mu_) = false;
  int fails_after_ ABSL_GUARDED_BY(mu_) = 1 << 30;
  int held_up_ ABSL_GUARDED_BY(mu_) = 0;
};

class StreamHostTest : public ::testing::Test {
 protected:
  LeaseId Lease(uint64_t seed, uint32_t blocks) {
    return memory_.Lease({.seed = seed, .blocks = blocks, .block_bytes = kBlockBytes});
  }
  std::unique_ptr<lanes::StreamLane> Lane() {
    return std::make_unique<lanes::StreamLane>(wire::MakeChannel(server_.address()), kAttachment);
  }
  struct Outcome {
    absl::Status status;
    std::vector<uint32_t> blocks;  // that came whole
    bool right = false;
  };
  static Outcome Read(lanes::StreamLane& lane, LeaseId lease, uint64_t seed, uint32_t blocks,
                      absl::Duration timeout = absl::Seconds(60)) {
    CheckingSink sink({.seed = seed, .blocks = blocks, .block_bytes = kBlockBytes});
    Outcome outcome;
    outcome.status = lane.Read({lease, 0, blocks, kBlockBytes}, sink, absl::Now() + timeout);
    outcome.blocks = sink.completed();
    outcome.right = sink.all_equal();
    return outcome;
  }

  MemoryLaneHost memory_{kAttachment};
  DiskHost disk_{memory_};
  StreamLaneServer server_{disk_};
};

TEST_F(StreamHostTest, WhatADiskHoldsUpHoldsUpNothingElse) {
  disk_.Hang(true);
  std::vector<Outcome> outcomes(kHeldUp);
  std::vector<std::thread> readers;
  const auto lane = Lane();
  for (int i = 0; i < kHeldUp; ++i) {
    const LeaseId lease = Lease(100 + i, 1);
    disk_.OnDisk(lease);
    readers.emplace_back([&, i, lease] { outcomes[i] = Read(*lane, lease, 100 + i, 1); });
  }
  EXPECT_TRUE(disk_.AwaitHeldUp(kHeldUp));
  const Outcome other = Read(*Lane(), Lease(1, 2), 1, 2);
  EXPECT_TRUE(other.status.ok()) << other.status;
  EXPECT_TRUE(other.right);
  disk_.Hang(false);
  for (std::thread& reader : readers) reader.join();
  for (const Outcome& outcome : outcomes) {
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_TRUE(outcome.right);
  }
}

TEST_F(StreamHostTest, ADiskThatFailsEndsTheCallAfterTheBlocksBefore) {
  const LeaseId lease = Lease(5, 4);
  disk_.OnDisk(lease);
  disk_.FailAfter(7);  // in the middle of the third block
  const Outcome outcome = Read(*Lane(), lease, 5, 4);
  EXPECT_EQ(outcome.status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(outcome.status.message(), ::testing::HasSubstr("the disk failed"));
  EXPECT_THAT(outcome.blocks, ::testing::ElementsAre(0, 1));
  EXPECT_TRUE(outcome.right);
  EXPECT_TRUE(memory_.AwaitNoPins(absl::Seconds(20)));
}

TEST_F(StreamHostTest, AReaderThatDoesNotWaitForADiskLeavesNothingBehind) {
  const LeaseId lease = Lease(6, 20);
  disk_.OnDisk(lease);
  disk_.Hang(true);
  const Outcome outcome = Read(*Lane(), lease, 6, 20, absl::Milliseconds(200));
  EXPECT_EQ(outcome.status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(outcome.blocks, ::testing::IsEmpty());
  disk_.Hang(false);
  EXPECT_TRUE(memory_.AwaitNoPins(absl::Seconds(20)));
  EXPECT_LE(disk_.copies(), 2) << "what nobody waits for is not read";
}

TEST_F(StreamHostTest, BeyondItsBoundADiskIsNotReadAndMemoryIs) {
  server_.AdmitFiles(false);
  const LeaseId on_disk = Lease(8, 1);
  disk_.OnDisk(on_disk);
  const Outcome refused = Read(*Lane(), on_disk, 8, 1);
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(disk_.copies(), 0);
  EXPECT_TRUE(Read(*Lane(), Lease(9, 1), 9, 1).status.ok());
  EXPECT_TRUE(memory_.AwaitNoPins(absl::Seconds(20)));
  server_.AdmitFiles(true);
  EXPECT_TRUE(Read(*Lane(), on_disk, 8, 1).status.ok());
}

TEST_F(StreamHostTest, BlocksThatWentOutAreCounted) {
  for (const bool on_disk : {false, true}) {
    const LeaseId lease = Lease(7, 5);
    if (on_disk) disk_.OnDisk(lease);
    EXPECT_TRUE(Read(*Lane(), lease, 7, 5).status.ok());
  }
  EXPECT_EQ(disk_.out(), std::pair(uint64_t{10}, 10 * kBlockBytes));
}

}  // namespace
}  // namespace reprise::testing
