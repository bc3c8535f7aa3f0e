// Sinks and sources in GPU memory, on a fake GPU, against the oracle of the copy tests.
#include "client/cpp/device_memory.h"

#include <functional>

#include "cluster/lanes/fallback_lane.h"
#include "cluster/lanes/lane_status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/types/refusal.h"
#include "tests/support/fake_gpu/fake_gpu.h"
#include "tests/unit/client/cpp/device_ends.h"

namespace reprise::client {
namespace {

using kernels::EngineShape;
using kernels::EngineShapes;
using reprise::testing::ConfigureFakeGpu;
using reprise::testing::FakeGpuOptions;
using reprise::testing::UseOfFakeGpu;
using testing::Count;
using testing::Delivery;
using testing::DeviceEngine;
using testing::DeviceSlots;
using testing::kThreads;
using testing::Must;
using testing::TransferOf;

// How a lane hands over a block.
enum class Way { kBuffer, kDeliver, kDevice };
constexpr Way kWays[] = {Way::kBuffer, Way::kDeliver, Way::kDevice};

absl::Status Hand(DeviceSink& sink, Way way, uint32_t i, const std::vector<uint8_t>& bytes,
                  DeviceSlots& slots) {
  switch (way) {
    case Way::kBuffer:
      std::copy(bytes.begin(), bytes.end(), sink.Buffer(i).begin());
      return sink.Complete(i);
    case Way::kDeliver:
      return sink.Deliver(i, bytes);
    case Way::kDevice:
      slots.Put(i, bytes);
      return sink.DeliverDevice(i, slots.AllConst(i, 1));
  }
  return absl::InternalError("no such way");
}

class DeviceMemoryTest : public ::testing::TestWithParam<EngineShape> {
 protected:
  // Work is done as late as a GPU may do it: a wait that is missing is wrong bytes.
  DeviceMemoryTest() { ConfigureFakeGpu({.deferred = true, .seed = 11}); }
};
class DeviceMemory : public ::testing::Test {
 protected:
  DeviceMemory() { ConfigureFakeGpu({.deferred = true, .seed = 12}); }
  const EngineShape shape_{.name = "nhd", .layers = 2, .heads = 2, .row_data_bytes = 64};
};

// ---- Sources

TEST_P(DeviceMemoryTest, BlocksAreGatheredAndChecksummedAsTheOracleDoes) {
  DeviceEngine engine(GetParam());
  const CallerMemory memory = engine.Memory();
  Must(memory.Check(engine.layout(), engine.blocks()));
  DeviceWorkspaces workspaces(kThreads);
  const auto blocks = Count(engine.blocks());
  DeviceSlots slots(engine.layout().block_bytes, engine.blocks());
  const auto always = [] { return absl::OkStatus(); };
  DeviceSource direct(TransferOf(memory, engine.layout()), workspaces, blocks, always);
  DeviceSource staged(TransferOf(memory, engine.layout()), workspaces, blocks, always);
  Must(direct.Prepare());
  Must(staged.Prepare());
  EXPECT_EQ(direct.memory(), lanes::MemoryKind::kDevice);
  Must(direct.FillDevice(0, slots.All(0, engine.blocks())));
  for (const uint32_t i : blocks) {
    const std::vector<uint8_t> want = engine.Block(i);
    EXPECT_EQ(slots.Get(i), want) << "block " << i;
    EXPECT_EQ(direct.checksums()[i], ChecksumOf(engine.layout(), want));
    std::vector<uint8_t> got(want.size());
    if (i % 2 == 0) {
      const auto bytes = Must(staged.Bytes(i));
      got.assign(bytes.begin(), bytes.end());
    } else {
      Must(staged.Fill(i, got));
    }
    EXPECT_EQ(got, want) << "block " << i;
    EXPECT_EQ(staged.checksums()[i], direct.checksums()[i]);
  }
  Must(direct.Finish());
  Must(staged.Finish());
}

TEST_F(DeviceMemory, ABlockThatIsAskedForAgainIsGivenAgain) {
  DeviceEngine engine(shape_);
  const CallerMemory memory = engine.Memory();
  DeviceWorkspaces workspaces(kThreads);
  const auto blocks = Count(engine.blocks());
  DeviceSource source(TransferOf(memory, engine.layout()), workspaces, blocks,
                      [] { return absl::OkStatus(); });
  Must(source.Prepare());
  for (const uint32_t i : {0u, 1u, 2u, 0u, 1u}) {
    const auto bytes = Must(source.Bytes(i));
    EXPECT_EQ(std::vector<uint8_t>(bytes.begin(), bytes.end()), engine.Block(i));
    EXPECT_EQ(source.checksums().size(), i + 1);
  }
}

// ---- Sinks

TEST_P(DeviceMemoryTest, BlocksAreScatteredAsTheOracleDoesWhicheverWayTheyCome) {
  for (const Way way : kWays) {
    DeviceEngine from(GetParam(), 3);
    DeviceEngine to(GetParam(), 4);
    const CallerMemory memory = to.Memory();
    DeviceWorkspaces workspaces(kThreads);
    DeviceSlots slots(to.layout().block_bytes, to.blocks());
    std::vector<Checksum128> checksums;
    for (uint32_t i = 0; i < to.blocks(); ++i) {
      checksums.push_back(ChecksumOf(to.layout(), from.Block(i)));
    }
    Delivery delivery;
    DeviceSink sink(TransferOf(memory, to.layout()), workspaces, checksums, delivery.Callbacks());
    Must(sink.Prepare());
    for (uint32_t i = 0; i < to.blocks(); ++i) {
      Must(Hand(sink, way, i, from.Block(i), slots));
      to.host().NaiveScatter({}, to.PagesOf(i), from.Block(i));
    }
    Must(sink.Finish());
    EXPECT_TRUE(to.Same()) << static_cast<int>(way);
    EXPECT_EQ(delivery.placed, Count(to.blocks()));
  }
}

TEST_F(DeviceMemory, ACorruptBlockEndsTheRunBeforeItAndIsNotWritten) {
  constexpr uint32_t kCorrupt = 5;
  for (const Way way : kWays) {
    DeviceEngine from(shape_, 3);
    DeviceEngine to(shape_, 4);
    const CallerMemory memory = to.Memory();
    DeviceWorkspaces workspaces(kThreads);
    DeviceSlots slots(to.layout().block_bytes, to.blocks());
    std::vector<Checksum128> checksums;
    for (uint32_t i = 0; i < to.blocks(); ++i) {
      checksums.push_back(ChecksumOf(to.layout(), from.Block(i)));
      std::vector<uint8_t> bytes = from.Block(i);
      if (i == kCorrupt) bytes[bytes.size() / 2] ^= 1;
      slots.Put(i, bytes);
      if (i < kCorrupt) to.host().NaiveScatter({}, to.PagesOf(i), bytes);
    }
    Delivery delivery;
    DeviceSink sink(TransferOf(memory, to.layout()), workspaces, checksums, delivery.Callbacks());
    Must(sink.Prepare());
    absl::Status status;
    if (way == Way::kDevice) {  // all in one call
      status = sink.DeliverDevice(0, slots.AllConst(0, to.blocks()));
    } else {
      for (uint32_t i = 0; status.ok() && i < to.blocks(); ++i) {
        status = Hand(sink, way, i, slots.Get(i), slots);
      }
    }
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_EQ(RefusalReason(status), "BLOCK_CORRUPT");
    Must(sink.Finish());
    EXPECT_EQ(delivery.placed, Count(kCorrupt));
    EXPECT_TRUE(to.Same()) << static_cast<int>(way);
  }
}

// An hour goes by before the time is asked for again.
struct StandingClock final : Clock {
  absl::Time Now() const override {
    if (when_looked_at) when_looked_at();
    return absl::UnixEpoch() + absl::Hours(++asked_);
  }
  std::function<void()> when_looked_at;
  mutable int asked_ = 0;
};

// Delivers blocks up to `end` one way, and is down then.
class EndingLane final : public lanes::Lane {
 public:
  EndingLane(DeviceEngine& from, DeviceSlots& slots, Way way, uint32_t end)
      : from_(from), slots_(slots), way_(way), end_(end) {}
  LaneKind kind() const override {
    return way_ == Way::kDevice ? LaneKind::kView : LaneKind::kStream;
  }
  absl::Status Read(const lanes::ReadJob& job, lanes::BlockSink& sink, absl::Time) override {
    EXPECT_EQ(sink.memory(), lanes::MemoryKind::kDevice);
    const uint32_t end = std::min(end_, job.first + job.blocks);
    if (way_ == Way::kDevice) {
      REPRISE_RETURN_IF_ERROR(sink.DeliverDevice(0, slots_.AllConst(job.first, end - job.first)));
    } else {
      for (uint32_t i = job.first; i < end; ++i) {
        REPRISE_RETURN_IF_ERROR(sink.Deliver(i - job.first, from_.Block(i)));
      }
    }
    return end == job.first + job.blocks ? absl::OkStatus() : lanes::LaneDown("the lane ended");
  }
  absl::Status Write(const lanes::WriteJob&, lanes::BlockSource&, absl::Time) override {
    return absl::UnimplementedError("reads alone");
  }

 private:
  DeviceEngine& from_;
  DeviceSlots& slots_;
  const Way way_;
  const uint32_t end_;
};

TEST_F(DeviceMemory, AReadGoesOnByAHostLaneWhereTheDeviceLaneEnded) {
  for (const bool device_first : {true, false}) {
    DeviceEngine from(shape_, 3);
    DeviceEngine to(shape_, 4);
    const CallerMemory memory = to.Memory();
    DeviceWorkspaces workspaces(kThreads);
    DeviceSlots slots(to.layout().block_bytes, to.blocks());
    std::vector<Checksum128> checksums;
    for (uint32_t i = 0; i < to.blocks(); ++i) {
      slots.Put(i, from.Block(i));
      checksums.push_back(ChecksumOf(to.layout(), from.Block(i)));
      to.host().NaiveScatter({}, to.PagesOf(i), from.Block(i));
    }
    std::vector<std::unique_ptr<lanes::Lane>> both;
    both.push_back(
        std::make_unique<EndingLane>(from, slots, device_first ? Way::kDevice : Way::kDeliver, 7));
    both.push_back(std::make_unique<EndingLane>(
        from, slots, device_first ? Way::kDeliver : Way::kDevice, to.blocks()));
    lanes::FallbackLane lane(std::move(both));
    Delivery delivery;
    DeviceSink sink(TransferOf(memory, to.layout()), workspaces, checksums, delivery.Callbacks());
    Must(sink.Prepare());
    Must(lane.Read(
        {.lease = {}, .first = 0, .blocks = to.blocks(), .block_bytes = to.layout().block_bytes},
        sink, absl::InfiniteFuture()));
    Must(sink.Finish());
    EXPECT_EQ(delivery.placed, Count(to.blocks()));
    EXPECT_TRUE(to.Same());
  }
}

// A process that stands still between a block's checksum and its use, for longer than the shard
// holds the block still, has read something else.
TEST_F(DeviceMemory, ABlockThatChangedWhileAReaderStoodStillIsNotCounted) {
  for (const bool changes : {true, false}) {
    DeviceEngine from(shape_, 3);
    DeviceEngine to(shape_, 4);
    const CallerMemory memory = to.Memory();
    DeviceWorkspaces workspaces(kThreads);
    DeviceSlots slots(to.layout().block_bytes, 1);
    slots.Put(0, from.Block(0));
    const std::vector<Checksum128> checksums = {ChecksumOf(to.layout(), from.Block(0))};
    Delivery delivery;
    StandingClock clock;
    DeviceSink sink(TransferOf(memory, to.layout()), workspaces, checksums, delivery.Callbacks(),
                    clock);
    Must(sink.Prepare());
    clock.when_looked_at = [&] {
      if (changes) slots.Put(0, from.Block(1));
    };
    const absl::Status status = sink.DeliverDevice(0, slots.AllConst(0, 1));
    EXPECT_EQ(status.code(), changes ? absl::StatusCode::kDeadlineExceeded : absl::StatusCode::kOk)
        << status;
    EXPECT_EQ(delivery.placed.size(), changes ? 0u : 1u);
    Must(sink.Finish());
  }
}

// ---- Buffers

TEST_F(DeviceMemory, OneBufferPerBlockIsStoredAndRestored) {
  DeviceEngine engine(shape_, 3);
  const BlockLayout& layout = engine.layout();
  DeviceSlots source(layout.block_bytes, 6), slots(layout.block_bytes, 6);
  DeviceSlots target(layout.block_bytes, 6);
  CallerMemory out, in;
  out.device = in.device = 0;
  for (uint32_t i = 0; i < 6; ++i) {
    source.Put(i, engine.Block(i));
    out.buffers.push_back(source.All(i, 1)[0].data());
    in.buffers.push_back(target.All(5 - i, 1)[0].data());
  }
  Must(out.Check(layout, 6));
  DeviceWorkspaces workspaces(kThreads);
  const auto blocks = Count(6);
  DeviceSource gather(TransferOf(out, layout), workspaces, blocks, [] { return absl::OkStatus(); });
  Must(gather.Prepare());
  Must(gather.FillDevice(0, slots.All(0, 6)));
  Must(gather.Finish());
  const std::vector<Checksum128> checksums(gather.checksums().begin(), gather.checksums().end());
  Delivery delivery;
  DeviceSink sink(TransferOf(in, layout), workspaces, checksums, delivery.Callbacks());
  Must(sink.Prepare());
  Must(sink.DeliverDevice(0, slots.AllConst(0, 3)));
  for (uint32_t i = 3; i < 6; ++i) Must(sink.Deliver(i, slots.Get(i)));
  Must(sink.Finish());
  for (uint32_t i = 0; i < 6; ++i) EXPECT_EQ(target.Get(5 - i), engine.Block(i)) << i;
}

// ---- Order with the caller's stream, and its end

TEST_F(DeviceMemory, WhatTheCallersStreamWasGivenBeforeIsWaitedFor) {
  DeviceEngine engine(shape_);
  const BlockLayout& layout = engine.layout();
  DeviceSlots source(layout.block_bytes, 1), slot(layout.block_bytes, 1);
  const kernels::Stream own = Must(kernels::Stream::Create(0));
  const uint8_t* buffer = source.All(0, 1)[0].data();
  Must(kernels::FillAsync(const_cast<uint8_t*>(buffer), 0x5C, layout.block_bytes, own.handle()));
  CallerMemory memory;
  memory.device = 0;
  memory.buffers = {const_cast<uint8_t*>(buffer)};
  memory.after = Must(MarkStream(0, own.handle()));
  DeviceWorkspaces workspaces(kThreads);
  const auto blocks = Count(1);
  DeviceSource gather(TransferOf(memory, layout), workspaces, blocks,
                      [] { return absl::OkStatus(); });
  Must(gather.Prepare());
  Must(gather.FillDevice(0, slot.All(0, 1)));
  Must(gather.Finish());
  EXPECT_THAT(slot.Get(0), ::testing::Each(0x5C));
}

TEST_F(DeviceMemory, ACallersStreamThatIsLateIsNotWaitedForBeyondTheDeadline) {
  DeviceEngine engine(shape_);
  const BlockLayout& layout = engine.layout();
  DeviceSlots target(layout.block_bytes, 1), busy(layout.block_bytes, 1);
  const kernels::Stream own = Must(kernels::Stream::Create(0));
  for (uint8_t i = 0; i < 16; ++i) {  // more than one question to the fake sets going
    Must(kernels::FillAsync(busy.All(0, 1)[0].data(), i, layout.block_bytes, own.handle()));
  }
  CallerMemory memory;
  memory.device = 0;
  memory.buffers = {target.All(0, 1)[0].data()};
  memory.after = Must(MarkStream(0, own.handle()));
  BlockTransfer transfer = TransferOf(memory, layout);
  transfer.deadline = absl::InfinitePast();
  const std::vector<Checksum128> checksums = {ChecksumOf(layout, engine.Block(0))};
  DeviceWorkspaces workspaces(kThreads);
  Delivery delivery;
  DeviceSink sink(transfer, workspaces, checksums, delivery.Callbacks());
  Must(sink.Prepare());
  Must(sink.Deliver(0, engine.Block(0)));
  const absl::Status finished = sink.Finish();
  EXPECT_EQ(finished.code(), absl::StatusCode::kDeadlineExceeded) << finished;
  EXPECT_EQ(RefusalReason(finished), "CALLER_STREAM_BUSY");
  EXPECT_TRUE(delivery.placed.empty());
  EXPECT_THAT(target.Get(0), ::testing::Each(reprise::testing::kFakeGpuPoison));
}

// Pieces of work that the fake was given.
uint64_t WorkDone() {
  return UseOfFakeGpu().launches + UseOfFakeGpu().copies;
}

TEST_F(DeviceMemory, ALostGpuIsAnErrorAndLeavesNothingBehind) {
  ConfigureFakeGpu({});
  uint64_t setup = 0;
  {
    const DeviceEngine engine(shape_);
    setup = WorkDone();
  }
  bool ended_well = false;
  for (uint64_t after = 1; after < 60 && !ended_well; ++after) {
    ConfigureFakeGpu({.lost_after = setup + after});
    {
      DeviceEngine to(shape_);
      std::vector<Checksum128> checksums;
      std::vector<std::vector<uint8_t>> bytes;
      for (uint32_t i = 0; i < to.blocks(); ++i) {
        bytes.emplace_back(to.layout().block_bytes, static_cast<uint8_t>(i));
        checksums.push_back(ChecksumOf(to.layout(), bytes[i]));
      }
      Delivery delivery;
      DeviceWorkspaces workspaces(kThreads);
      const CallerMemory memory = to.Memory();
      DeviceSink sink(TransferOf(memory, to.layout()), workspaces, checksums, delivery.Callbacks());
      Must(sink.Prepare());
      absl::Status status;
      for (uint32_t i = 0; status.ok() && i < to.blocks(); ++i) status = sink.Deliver(i, bytes[i]);
      const absl::Status finished = sink.Finish();
      ended_well = finished.ok();
      EXPECT_EQ(delivery.placed.size() == to.blocks(), ended_well);
      EXPECT_EQ(RefusalReason(finished), ended_well ? "" : "GPU_LOST") << finished;
    }
    ASSERT_EQ(UseOfFakeGpu().alive(), 0u) << "after " << after;
  }
  EXPECT_TRUE(ended_well) << "the loss came before the end every time";
}

// ---- Misuse

TEST_F(DeviceMemory, MemoryThatIsNotWhereItIsSaidToBeIsNamed) {
  DeviceEngine engine(shape_);
  const BlockLayout& layout = engine.layout();
  std::vector<uint8_t> host(layout.block_bytes);
  CallerMemory memory;
  memory.device = 0;
  memory.buffers = {host.data()};
  absl::Status status = memory.Check(layout, 1);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(status.ToString(), ::testing::HasSubstr("buffers[0] is in host memory"));
  DeviceSlots slots(layout.block_bytes, 2);
  memory.buffers = {slots.All(0, 1)[0].data() + 4};
  EXPECT_THAT(memory.Check(layout, 1).ToString(), ::testing::HasSubstr("multiple of 16"));
  memory.buffers = {slots.All(0, 1)[0].data()};
  Must(memory.Check(layout, 1));
  memory.device = 3;
  EXPECT_THAT(memory.Check(layout, 1).ToString(), ::testing::HasSubstr("device is 3"));
  auto planes = engine.host().plan().planes;
  status = MakeDevicePlan(layout, planes, shape_.page_tokens, 0).status();
  EXPECT_THAT(status.ToString(), ::testing::HasSubstr("planes[0].base is in host memory"));
  CallerMemory paged = engine.Memory();
  paged.gpu_plan = nullptr;
  EXPECT_EQ(RefusalReason(paged.Check(layout, 1)), "MEMORY_PLAN");
}

TEST_F(DeviceMemory, WithoutAGpuDeviceMemoryIsRefusedWithTheReason) {
  ConfigureFakeGpu({.devices = 0});
  CallerMemory memory;
  uint8_t byte = 0;
  memory.device = 0;
  memory.buffers = {&byte};
  const absl::Status status = memory.Check(testing::LayoutOfShape(shape_), 1);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_EQ(RefusalReason(status), "GPU_ABSENT");
}

INSTANTIATE_TEST_SUITE_P(Shapes, DeviceMemoryTest, ::testing::ValuesIn(EngineShapes()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace reprise::client
