// Blocks between GPU memory and pinned host memory, by the copy engine in groups, on a fake GPU.
#include <optional>

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
using reprise::testing::UseOfFakeGpu;
using testing::Count;
using testing::Delivery;
using testing::DeviceEngine;
using testing::kThreads;
using testing::Must;
using testing::PinnedSlots;
using testing::TransferOf;

absl::Status Always() {
  return absl::OkStatus();
}

// What an engine's blocks pack to. Byte by byte, and so done once.
struct Packed {
  explicit Packed(DeviceEngine& engine) {
    for (uint32_t i = 0; i < engine.blocks(); ++i) {
      blocks.push_back(engine.Block(i));
      checksums.push_back(ChecksumOf(engine.layout(), blocks[i]));
    }
  }
  std::vector<std::vector<uint8_t>> blocks;
  std::vector<Checksum128> checksums;
};

// Work is done as late as a GPU may do it: a wait that is missing is wrong bytes.
class DevicePinnedTest : public ::testing::TestWithParam<EngineShape> {
 protected:
  DevicePinnedTest() { ConfigureFakeGpu({.deferred = true, .seed = 21}); }
};

// Blocks of 1 MiB, four to a group: more groups than there is staging for.
class DevicePinned : public ::testing::Test {
 protected:
  static constexpr uint32_t kBlocks = 19;
  DevicePinned() { Start(22); }
  void Start(uint64_t seed) { ConfigureFakeGpu({.deferred = true, .seed = seed}); }

  const EngineShape shape_{
      .name = "large", .layers = 8, .heads = 8, .row_data_bytes = 512, .pages = kBlocks};
};

TEST_P(DevicePinnedTest, BlocksAreGatheredAndScatteredAsTheOracleDoes) {
  DeviceEngine from(GetParam(), 3);
  DeviceEngine to(GetParam(), 4);
  const BlockLayout& layout = from.layout();
  const CallerMemory source_memory = from.Memory(), sink_memory = to.Memory();
  const auto blocks = Count(from.blocks());
  const Packed packed(from);
  DeviceWorkspaces workspaces(kThreads);
  PinnedSlots slots(layout.block_bytes, from.blocks());
  DeviceSource source(TransferOf(source_memory, layout), workspaces, blocks, Always);
  Must(source.Prepare());
  Must(source.FillPinned(0, slots.All()));
  Must(source.Finish());
  EXPECT_THAT(source.checksums(), ::testing::ElementsAreArray(packed.checksums));
  Delivery delivery;
  DeviceSink sink(TransferOf(sink_memory, layout), workspaces, packed.checksums,
                  delivery.Callbacks());
  Must(sink.Prepare());
  Must(sink.DeliverPinned(0, slots.AllConst(0, from.blocks())));
  Must(sink.Finish());
  for (uint32_t i = 0; i < from.blocks(); ++i) {
    EXPECT_EQ(slots.Get(i), packed.blocks.at(i)) << i;
    to.host().NaiveScatter({}, to.PagesOf(i), packed.blocks.at(i));
  }
  EXPECT_TRUE(to.Same());
  EXPECT_EQ(delivery.verified, blocks);
  EXPECT_EQ(delivery.placed, blocks);
}

TEST_F(DevicePinned, MoreGroupsThanThereIsStagingForKeepTheirBytesAndOrder) {
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    Start(seed);
    DeviceEngine from(shape_, 3);
    DeviceEngine to(shape_, 4);
    const BlockLayout& layout = from.layout();
    ASSERT_GT(uint64_t{kBlocks} * layout.block_bytes,
              (limits::kDeviceGroups + 1) * limits::kDeviceGroupBytes);
    const CallerMemory source_memory = from.Memory(), sink_memory = to.Memory();
    const auto blocks = Count(kBlocks);
    const Packed packed(from);
    DeviceWorkspaces workspaces(kThreads);
    PinnedSlots slots(layout.block_bytes, kBlocks);
    DeviceSource source(TransferOf(source_memory, layout), workspaces, blocks, Always);
    Must(source.Prepare());
    Must(source.FillPinned(0, slots.All()));
    EXPECT_EQ(UseOfFakeGpu().pending, 0u) << "the slots are the lane's again";
    Must(source.Finish());
    EXPECT_THAT(source.checksums(), ::testing::ElementsAreArray(packed.checksums))
        << "seed " << seed;
    Delivery delivery;
    DeviceSink sink(TransferOf(sink_memory, layout), workspaces, packed.checksums,
                    delivery.Callbacks());
    Must(sink.Prepare());
    Must(sink.DeliverPinned(0, slots.AllConst(0, kBlocks)));
    EXPECT_EQ(delivery.placed, blocks) << "valid during the call only";
    Must(sink.Finish());
    for (uint32_t i = 0; i < kBlocks; ++i) {
      ASSERT_EQ(slots.Get(i), packed.blocks.at(i)) << "seed " << seed << ", block " << i;
      to.host().NaiveScatter({}, to.PagesOf(i), packed.blocks.at(i));
    }
    ASSERT_TRUE(to.Same()) << "seed " << seed;
  }
}

TEST_F(DevicePinned, ACorruptBlockEndsTheRunBeforeItAndIsNotWritten) {
  DeviceEngine from(shape_, 3);
  const Packed packed(from);
  for (const uint32_t corrupt : {0u, 3u, 4u, 10u, kBlocks - 1}) {
    DeviceEngine to(shape_, 4);
    const CallerMemory memory = to.Memory();
    DeviceWorkspaces workspaces(kThreads);
    PinnedSlots slots(to.layout().block_bytes, kBlocks);
    for (uint32_t i = 0; i < kBlocks; ++i) {
      std::vector<uint8_t> bytes = packed.blocks.at(i);
      if (i == corrupt) bytes[bytes.size() / 2] ^= 1;
      slots.Put(i, bytes);
      if (i < corrupt) to.host().NaiveScatter({}, to.PagesOf(i), bytes);
    }
    Delivery delivery;
    DeviceSink sink(TransferOf(memory, to.layout()), workspaces, packed.checksums,
                    delivery.Callbacks());
    Must(sink.Prepare());
    const absl::Status status = sink.DeliverPinned(0, slots.AllConst(0, kBlocks));
    EXPECT_EQ(RefusalReason(status), "BLOCK_CORRUPT") << status;
    EXPECT_EQ(delivery.placed, Count(corrupt));
    Must(sink.Finish());
    EXPECT_EQ(delivery.verified, Count(corrupt));
    EXPECT_TRUE(to.Same()) << corrupt;
  }
}

TEST_F(DevicePinned, PinnedAndOtherBlocksOfOneReadKeepTheirOrder) {
  DeviceEngine from(shape_, 3);
  DeviceEngine to(shape_, 4);
  const CallerMemory memory = to.Memory();
  const Packed packed(from);
  DeviceWorkspaces workspaces(kThreads);
  PinnedSlots slots(to.layout().block_bytes, kBlocks);
  for (uint32_t i = 0; i < kBlocks; ++i) {
    slots.Put(i, packed.blocks.at(i));
    to.host().NaiveScatter({}, to.PagesOf(i), packed.blocks.at(i));
  }
  Delivery delivery;
  DeviceSink sink(TransferOf(memory, to.layout()), workspaces, packed.checksums,
                  delivery.Callbacks());
  Must(sink.Prepare());
  for (uint32_t i = 0; i < 5; ++i) Must(sink.Deliver(i, packed.blocks.at(i)));
  Must(sink.DeliverPinned(5, slots.AllConst(5, 9)));
  Must(sink.Deliver(14, packed.blocks.at(14)));
  Must(sink.DeliverPinned(15, slots.AllConst(15, kBlocks - 15)));
  Must(sink.Finish());
  EXPECT_EQ(delivery.placed, Count(kBlocks));
  EXPECT_TRUE(to.Same());
}

TEST_F(DevicePinned, AReadThatIsCalledOffPlacesWhatWasVerified) {
  DeviceEngine from(shape_, 3);
  DeviceEngine to(shape_, 4);
  const CallerMemory memory = to.Memory();
  const Packed packed(from);
  DeviceWorkspaces workspaces(kThreads);
  PinnedSlots slots(to.layout().block_bytes, kBlocks);
  for (uint32_t i = 0; i < kBlocks; ++i) slots.Put(i, packed.blocks.at(i));
  std::vector<uint32_t> placed;
  DeviceSink sink(
      TransferOf(memory, to.layout()), workspaces, packed.checksums,
      {[](uint32_t i) { return i < 6 ? absl::OkStatus() : absl::CancelledError("off"); },
       [&](uint32_t i) { placed.push_back(i); }});
  Must(sink.Prepare());
  EXPECT_TRUE(absl::IsCancelled(sink.DeliverPinned(0, slots.AllConst(0, kBlocks))));
  Must(sink.Finish());
  EXPECT_EQ(placed, Count(8)) << "the group in which it was called off";
  for (uint32_t i = 0; i < 8; ++i) to.host().NaiveScatter({}, to.PagesOf(i), packed.blocks.at(i));
  EXPECT_TRUE(to.Same());
}

TEST_F(DevicePinned, AWriteGoesOnWithHostBytesWhereItLeftPinnedSlots) {
  DeviceEngine from(shape_, 3);
  const Packed packed(from);
  const CallerMemory memory = from.Memory();
  const auto blocks = Count(kBlocks);
  DeviceWorkspaces workspaces(kThreads);
  PinnedSlots slots(from.layout().block_bytes, kBlocks);
  DeviceSource source(TransferOf(memory, from.layout()), workspaces, blocks, Always);
  Must(source.Prepare());
  const auto take = [&](uint32_t i) {
    const auto bytes = Must(source.Bytes(i));
    EXPECT_EQ(std::vector<uint8_t>(bytes.begin(), bytes.end()), packed.blocks.at(i)) << i;
  };
  take(0);
  take(1);
  Must(source.FillPinned(2, slots.All().subspan(2, 9)));
  for (uint32_t i = 11; i < kBlocks; ++i) take(i);
  // Another lane begins anew.
  take(0);
  Must(source.FillPinned(1, slots.All().subspan(1)));
  Must(source.Finish());
  for (uint32_t i = 1; i < kBlocks; ++i) EXPECT_EQ(slots.Get(i), packed.blocks.at(i)) << i;
  EXPECT_THAT(source.checksums(), ::testing::ElementsAreArray(packed.checksums));
}

TEST_F(DevicePinned, AWriteThatIsCalledOffLeavesNothingUnderWay) {
  DeviceEngine from(shape_, 3);
  const CallerMemory memory = from.Memory();
  const auto blocks = Count(kBlocks);
  DeviceWorkspaces workspaces(kThreads);
  PinnedSlots slots(from.layout().block_bytes, kBlocks);
  int asked = 0;
  DeviceSource source(TransferOf(memory, from.layout()), workspaces, blocks,
                      [&] { return ++asked < 4 ? absl::OkStatus() : absl::CancelledError("off"); });
  Must(source.Prepare());
  EXPECT_TRUE(absl::IsCancelled(source.FillPinned(0, slots.All())));
  EXPECT_EQ(UseOfFakeGpu().pending, 0u) << "the slots are the lane's again";
  Must(source.Finish());
}

// Pieces of work that the fake was given.
uint64_t WorkDone() {
  return UseOfFakeGpu().launches + UseOfFakeGpu().copies;
}

TEST_F(DevicePinned, ALostGpuIsAnErrorAndLeavesNothingBehind) {
  const EngineShape shape{.name = "small", .pages = 8};
  bool read = false, written = false;
  for (uint64_t after = 1; after < 60 && !(read && written); ++after) {
    std::optional<uint64_t> setup;
    for (const bool lost : {false, true}) {
      ConfigureFakeGpu({.lost_after = lost ? *setup + after : 0});
      DeviceEngine engine(shape);
      setup = WorkDone();
      if (!lost) continue;
      const CallerMemory memory = engine.Memory();
      const auto blocks = Count(engine.blocks());
      DeviceWorkspaces workspaces(kThreads);
      PinnedSlots slots(engine.layout().block_bytes, engine.blocks());
      DeviceSource source(TransferOf(memory, engine.layout()), workspaces, blocks, Always);
      Must(source.Prepare());
      const absl::Status filled = source.FillPinned(0, slots.All());
      written = source.Finish().ok() && filled.ok();
      EXPECT_EQ(source.checksums().size() == engine.blocks(), written);
      if (!written) {
        EXPECT_EQ(RefusalReason(filled), "GPU_LOST") << filled;
        continue;
      }
      const std::vector<Checksum128> checksums(source.checksums().begin(),
                                               source.checksums().end());
      Delivery delivery;
      DeviceSink sink(TransferOf(memory, engine.layout()), workspaces, checksums,
                      delivery.Callbacks());
      Must(sink.Prepare());
      const absl::Status status = sink.DeliverPinned(0, slots.AllConst(0, engine.blocks()));
      const absl::Status finished = sink.Finish();
      read = status.ok() && finished.ok();
      EXPECT_EQ(delivery.placed.size() == engine.blocks(), read);
      if (!read) EXPECT_EQ(RefusalReason(finished), "GPU_LOST") << finished;
    }
    ASSERT_EQ(UseOfFakeGpu().alive(), 0u) << "after " << after;
  }
  EXPECT_TRUE(read && written) << "the loss came before the end every time";
}

INSTANTIATE_TEST_SUITE_P(Shapes, DevicePinnedTest, ::testing::ValuesIn(EngineShapes()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace reprise::client
