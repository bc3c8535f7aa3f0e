#include "cluster/lanes/fallback_lane.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "cluster/lanes/in_process/in_process_lane.h"
#include "cluster/lanes/lane_status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/types/limits.h"
#include "tests/support/lane_ends.h"
#include "tests/support/memory_lane_host.h"

namespace reprise::lanes {
namespace {

using reprise::testing::CheckingSink;
using reprise::testing::Iota;
using reprise::testing::MemoryLaneHost;
using reprise::testing::PatternSource;

// Carries `blocks` blocks of a job by the lane beneath it and then fails with `status`.
class DyingLane final : public Lane {
 public:
  DyingLane(LaneHost* host, uint32_t blocks, absl::Status status)
      : lane_(host, AttachmentId(5)), blocks_(blocks), status_(std::move(status)) {}
  LaneKind kind() const override { return LaneKind::kView; }
  absl::Status Read(const ReadJob& job, BlockSink& sink, absl::Time deadline) override {
    ++calls;
    ReadJob part = job;
    part.blocks = std::min(blocks_, job.blocks);
    if (part.blocks > 0) {
      if (absl::Status status = lane_.Read(part, sink, deadline); !status.ok()) return status;
    }
    return part.blocks == job.blocks ? absl::OkStatus() : status_;
  }
  absl::Status Write(const WriteJob& job, BlockSource& source, absl::Time deadline) override {
    ++calls;
    WriteJob part = job;
    part.blocks.resize(std::min<size_t>(blocks_, job.blocks.size()));
    if (absl::Status status = lane_.Write(part, source, deadline); !status.ok()) return status;
    return part.blocks.size() == job.blocks.size() ? absl::OkStatus() : status_;
  }
  int calls = 0;

 private:
  InProcessLane lane_;
  const uint32_t blocks_;
  const absl::Status status_;
};

class FallbackLaneTest : public ::testing::Test {
 protected:
  std::unique_ptr<FallbackLane> Make(uint32_t first_lane_blocks, absl::Status status) {
    std::vector<std::unique_ptr<Lane>> lanes;
    auto dying = std::make_unique<DyingLane>(&host_, first_lane_blocks, std::move(status));
    dying_ = dying.get();
    lanes.push_back(std::move(dying));
    lanes.push_back(std::make_unique<InProcessLane>(&host_, AttachmentId(5)));
    return std::make_unique<FallbackLane>(std::move(lanes));
  }
  static absl::Time Soon() { return absl::Now() + absl::Seconds(30); }

  MemoryLaneHost host_{AttachmentId(5)};
  DyingLane* dying_ = nullptr;
};

TEST_F(FallbackLaneTest, WhatALaneLeftUndoneIsDoneByTheNext) {
  for (const uint32_t before : {0u, 1u, 5u, 9u, 10u}) {
    SCOPED_TRACE(before);
    const auto lane = Make(before, LaneDown("gone"));
    const LeaseId lease =
        host_.Lease({.seed = 3, .first_block = 4, .blocks = 10, .block_bytes = 999});
    CheckingSink sink({.seed = 3, .first = 4, .blocks = 10, .block_bytes = 999});
    const absl::Status status = lane->Read({lease, 4, 10, 999}, sink, Soon());
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(sink.completed(), Iota(10));
    EXPECT_TRUE(sink.all_equal());
    EXPECT_EQ(lane->BlocksServed(LaneKind::kView), before);
    EXPECT_EQ(lane->BlocksServed(LaneKind::kInProcess), 10 - before);
    EXPECT_EQ(lane->kind(), before == 10 ? LaneKind::kView : LaneKind::kInProcess);
  }
}

TEST_F(FallbackLaneTest, ASinkThatAsksLearnsWhichLaneBringsTheBlock) {
  class AskingSink final : public BlockSink {
   public:
    std::span<uint8_t> Buffer(uint32_t) override { return {}; }
    absl::Status Complete(uint32_t) override { return absl::InternalError("copied"); }
    absl::Status Deliver(uint32_t, std::span<const uint8_t>) override {
      kinds.push_back(lane->kind());
      return absl::OkStatus();
    }
    const Lane* lane = nullptr;
    std::vector<LaneKind> kinds;
  } sink;
  const auto lane = Make(2, LaneDown("gone"));
  sink.lane = lane.get();
  const LeaseId lease = host_.Lease({.blocks = 4, .block_bytes = 999});
  ASSERT_TRUE(lane->Read({lease, 0, 4, 999}, sink, Soon()).ok());
  EXPECT_THAT(sink.kinds, ::testing::ElementsAre(LaneKind::kView, LaneKind::kView,
                                                 LaneKind::kInProcess, LaneKind::kInProcess));
}

TEST_F(FallbackLaneTest, EveryBlockIsToldTheLaneThatBringsItAlsoWhileAnotherJobRuns) {
  class ToldSink final : public BlockSink {
   public:
    std::span<uint8_t> Buffer(uint32_t) override { return {}; }
    absl::Status Complete(uint32_t) override { return absl::InternalError("copied"); }
    absl::Status Deliver(uint32_t i, std::span<const uint8_t>) override {
      if (i == 1 && other) other();
      kinds.push_back(carried_by());
      return absl::OkStatus();
    }
    std::function<void()> other;
    std::vector<std::optional<LaneKind>> kinds;
  } sink;
  const auto lane = Make(2, LaneDown("gone"));
  const LeaseId lease = host_.Lease({.blocks = 4, .block_bytes = 999});
  // Ends on the other lane while this one still brings blocks.
  sink.other = [&] {
    ToldSink another;
    ASSERT_TRUE(lane->Read({lease, 0, 4, 999}, another, Soon()).ok());
  };
  ASSERT_TRUE(lane->Read({lease, 0, 4, 999}, sink, Soon()).ok());
  EXPECT_THAT(sink.kinds, ::testing::ElementsAre(LaneKind::kView, LaneKind::kView,
                                                 LaneKind::kInProcess, LaneKind::kInProcess));
}

TEST_F(FallbackLaneTest, LanesAreUsedInTheOrderOfEachJobAndUnnamedOnesNot) {
  std::vector<LaneJob> jobs;
  std::vector<LaneKind> order = {LaneKind::kInProcess, LaneKind::kView};
  std::vector<std::unique_ptr<Lane>> lanes;
  auto dying = std::make_unique<DyingLane>(&host_, 100, absl::OkStatus());
  DyingLane* const view = dying.get();
  lanes.push_back(std::move(dying));
  lanes.push_back(std::make_unique<InProcessLane>(&host_, AttachmentId(5)));
  FallbackLane lane(std::move(lanes), [&](const LaneJob& job, const LaneRates&) {
    jobs.push_back(job);
    return order;
  });
  const LeaseId lease = host_.Lease({.blocks = 4, .block_bytes = 1000});
  CheckingSink first({.blocks = 4, .block_bytes = 1000});
  ASSERT_TRUE(lane.Read({lease, 0, 4, 1000}, first, Soon()).ok());
  EXPECT_EQ(view->calls, 0);
  EXPECT_EQ(lane.BlocksServed(LaneKind::kInProcess), 4u);
  order = {LaneKind::kView};
  CheckingSink second({.blocks = 4, .block_bytes = 1000});
  ASSERT_TRUE(lane.Read({lease, 0, 4, 1000}, second, Soon()).ok());
  EXPECT_EQ(view->calls, 1);
  order = {LaneKind::kNccl};  // which is not there: as they come
  CheckingSink third({.blocks = 4, .block_bytes = 1000});
  ASSERT_TRUE(lane.Read({lease, 0, 4, 1000}, third, Soon()).ok());
  EXPECT_EQ(view->calls, 2);
  ASSERT_EQ(jobs.size(), 3u);
  EXPECT_EQ(jobs[0].bytes, 4000u);
  EXPECT_EQ(jobs[0].caller, MemoryKind::kHost);
}

TEST_F(FallbackLaneTest, TheRatesOfLargeJobsAreMeasuredPerLane) {
  const auto lane = Make(1'000'000, absl::OkStatus());
  const uint64_t large = limits::kRateJobBytesMin;
  EXPECT_EQ(lane->rates(MemoryKind::kHost).view, 0);
  const LeaseId lease = host_.Lease({.blocks = 1, .block_bytes = large});
  CheckingSink sink({.blocks = 1, .block_bytes = large});
  ASSERT_TRUE(lane->Read({lease, 0, 1, large}, sink, Soon()).ok());
  EXPECT_GT(lane->rates(MemoryKind::kHost).view, 0);
  EXPECT_EQ(lane->rates(MemoryKind::kHost).stream, 0);
  EXPECT_EQ(lane->rates(MemoryKind::kDevice).view, 0);
}

TEST_F(FallbackLaneTest, AWriteThatALaneDroppedIsWrittenByTheNext) {
  const auto lane = Make(2, LaneDown("gone"));
  const ReservationId reservation = host_.Reserve(5, 640);
  PatternSource source(8, Iota(5), 640);
  ASSERT_TRUE(lane->Write({reservation, Iota(5), 640}, source, Soon()).ok());
  for (uint32_t i = 0; i < 5; ++i) EXPECT_EQ(host_.BytesWritten(reservation, i), 640u);
}

TEST_F(FallbackLaneTest, ALaneThatUsesUpItsShareOfTheDeadlineIsFollowedByTheNext) {
  const auto lane = Make(3, absl::DeadlineExceededError("slow"));
  const LeaseId lease = host_.Lease({.seed = 3, .blocks = 6, .block_bytes = 999});
  CheckingSink sink({.seed = 3, .blocks = 6, .block_bytes = 999});
  EXPECT_TRUE(lane->Read({lease, 0, 6, 999}, sink, Soon()).ok());
  EXPECT_EQ(sink.completed(), Iota(6));
}

// Waits for its deadline, or for half of it, and notes which it got.
class StallingLane final : public Lane {
 public:
  explicit StallingLane(bool notices) : notices_(notices) {}
  LaneKind kind() const override { return LaneKind::kTcp; }
  uint32_t flows() const override { return 3; }
  bool notices_stalls() const override { return notices_; }
  absl::Status Read(const ReadJob&, BlockSink&, absl::Time deadline) override {
    given = deadline;
    return LaneDown("nothing moves");
  }
  absl::Status Write(const WriteJob&, BlockSource&, absl::Time deadline) override {
    given = deadline;
    return LaneDown("nothing moves");
  }
  absl::Time given;

 private:
  const bool notices_;
};

TEST_F(FallbackLaneTest, ALaneThatNoticesStallsItselfHasAllOfTheTime) {
  for (const bool notices : {false, true}) {
    std::vector<std::unique_ptr<Lane>> lanes;
    auto stalling = std::make_unique<StallingLane>(notices);
    const StallingLane& first = *stalling;
    lanes.push_back(std::move(stalling));
    lanes.push_back(std::make_unique<InProcessLane>(&host_, AttachmentId(5)));
    FallbackLane lane(std::move(lanes));
    const absl::Time deadline = Soon();
    CheckingSink sink({.blocks = 2, .block_bytes = 512});
    const LeaseId lease = host_.Lease({.blocks = 2, .block_bytes = 512});
    EXPECT_TRUE(lane.Read({lease, 0, 2, 512}, sink, deadline).ok());
    EXPECT_EQ(first.given == deadline, notices);
    PatternSource source(1, Iota(2), 512);
    EXPECT_TRUE(lane.Write({host_.Reserve(2, 512), Iota(2), 512}, source, deadline).ok());
    EXPECT_EQ(first.given == deadline, notices);
  }
}

TEST_F(FallbackLaneTest, HasTheFlowsOfTheLaneThatCarries) {
  std::vector<std::unique_ptr<Lane>> lanes;
  lanes.push_back(std::make_unique<StallingLane>(false));
  lanes.push_back(std::make_unique<InProcessLane>(&host_, AttachmentId(5)));
  FallbackLane lane(std::move(lanes));
  EXPECT_EQ(lane.flows(), 3u);
  CheckingSink sink({.blocks = 1, .block_bytes = 512});
  const LeaseId lease = host_.Lease({.blocks = 1, .block_bytes = 512});
  EXPECT_TRUE(lane.Read({lease, 0, 1, 512}, sink, Soon()).ok());
  EXPECT_EQ(lane.flows(), 1u);
}

TEST_F(FallbackLaneTest, ARefusalOfTheShardIsNotTriedAgain) {
  const auto lane = Make(1, absl::NotFoundError("the lease is over"));
  const LeaseId lease = host_.Lease({.seed = 3, .blocks = 6, .block_bytes = 999});
  CheckingSink sink({.seed = 3, .blocks = 6, .block_bytes = 999});
  EXPECT_EQ(lane->Read({lease, 0, 6, 999}, sink, Soon()).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(sink.completed(), Iota(1));
}

// A sink may well refuse with LANE_DOWN when it forwards to a lane itself: still its own refusal.
TEST_F(FallbackLaneTest, ARefusalOfTheSinkIsNotTriedAgain) {
  class Refusing final : public BlockSink {
   public:
    std::span<uint8_t> Buffer(uint32_t) override { return {}; }
    absl::Status Complete(uint32_t) override { return LaneDown("mine"); }
    absl::Status Deliver(uint32_t, std::span<const uint8_t>) override {
      ++calls;
      return LaneDown("mine");
    }
    int calls = 0;
  } sink;
  const auto lane = Make(6, absl::OkStatus());
  const LeaseId lease = host_.Lease({.blocks = 6, .block_bytes = 999});
  EXPECT_TRUE(IsLaneDown(lane->Read({lease, 0, 6, 999}, sink, Soon())));
  EXPECT_EQ(sink.calls, 1);
}

TEST_F(FallbackLaneTest, ARefusalOfTheSourceIsNotTriedAgain) {
  class DownSource final : public BlockSource {
   public:
    absl::StatusOr<std::span<const uint8_t>> Bytes(uint32_t) override {
      ++asked;
      return LaneDown("the source's own, which looks like a lane's");
    }
    absl::Status Fill(uint32_t, std::span<uint8_t>) override {
      ++asked;
      return LaneDown("the source's own, which looks like a lane's");
    }
    int asked = 0;
  };
  const auto lane = Make(10, LaneDown("gone"));
  DownSource source;
  const ReservationId reservation = host_.Reserve(2, 512);
  EXPECT_TRUE(IsLaneDown(lane->Write({reservation, Iota(2), 512}, source, Soon())));
  EXPECT_EQ(source.asked, 1);
}

TEST_F(FallbackLaneTest, AnUnavailableShardIsNotAskedThroughAnotherLane) {
  const auto lane = Make(0, absl::UnavailableError("the shard is gone"));
  const LeaseId lease = host_.Lease({.blocks = 2, .block_bytes = 999});
  CheckingSink sink({.blocks = 2, .block_bytes = 999});
  const absl::Status status = lane->Read({lease, 0, 2, 999}, sink, Soon());
  EXPECT_EQ(status.message(), "the shard is gone");
  EXPECT_THAT(sink.completed(), ::testing::IsEmpty());
}

}  // namespace
}  // namespace reprise::lanes
