// What is particular about the view lane over device memory: who maps what how often, and what
// happens when nobody can, or dies.
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cluster/lanes/lane_status.h"
#include "cluster/lanes/view/view_lane.h"
#include "cluster/lanes/view/view_server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/runtime/device.h"
#include "service/pool/hbm_pool.h"
#include "tests/support/fake_gpu/fake_gpu.h"
#include "tests/support/lane_ends.h"
#include "tests/support/process.h"
#include "tests/support/view_host/device_slots.h"
#include "tests/support/view_host/hbm_slots.h"
#include "tests/support/view_host/view_host_process.h"

namespace reprise::lanes {
namespace {

using reprise::testing::CheckingSink;
using reprise::testing::ConfigureFakeGpu;
using reprise::testing::CopyByGpu;
using reprise::testing::HbmSlots;
using reprise::testing::Iota;
using reprise::testing::MemoryLaneHost;
using reprise::testing::PatternSource;
using reprise::testing::Process;
using reprise::testing::UseOfFakeGpu;
using reprise::testing::ViewHostProcess;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr AttachmentId kAttachment(77);
constexpr uint64_t kBytes = 4096;

absl::Time Soon() {
  return absl::Now() + absl::Seconds(60);
}

// True as soon as `done` is; false when it was not in a minute.
template <typename Done>
bool Eventually(const Done& done) {
  for (const absl::Time end = Soon(); absl::Now() < end;) {
    if (done()) return true;
    std::this_thread::yield();
  }
  return false;
}

class ViewGpuTest : public ::testing::Test {
 protected:
  void TearDown() override {
    lane_.reset();
    EXPECT_EQ(UseOfFakeGpu().alive(), 0u) << "the lane kept something";
    ConfigureFakeGpu({});
  }

  void Start(const std::string& slots, const std::string& fake_gpu = "") {
    lane_.reset();
    host_.reset();
    host_ = std::make_unique<ViewHostProcess>(
        kAttachment,
        ViewHostProcess::Options{
            .program = slots == "host" ? REPRISE_VIEW_HOST : REPRISE_VIEW_HOST_FAKE_GPU,
            .memory = slots,
            .fake_gpu = fake_gpu});
    auto lane = ViewLane::Connect({.socket = host_->address(), .attachment = kAttachment}, Soon());
    ASSERT_TRUE(lane.ok()) << lane.status();
    lane_ = *std::move(lane);
  }

  static CheckingSink DeviceSink(uint32_t first, uint32_t blocks) {
    return CheckingSink(
        {.first = first, .blocks = blocks, .block_bytes = kBytes, .copy = CopyByGpu});
  }
  absl::Status Read(LeaseId lease, uint32_t first, uint32_t blocks, CheckingSink& sink) {
    return lane_->Read({lease, first, blocks, kBytes}, sink, Soon());
  }
  LeaseId Lease(uint32_t blocks) { return host_->Lease({.blocks = blocks, .block_bytes = kBytes}); }

  std::unique_ptr<ViewHostProcess> host_;
  std::unique_ptr<ViewLane> lane_;
};

TEST_F(ViewGpuTest, ARunInDeviceMemoryIsDeliveredInOneCall) {
  Start("device");
  CheckingSink sink = DeviceSink(0, 12);
  const absl::Status status = Read(Lease(12), 0, 12, sink);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_THAT(sink.device_calls(), ElementsAre(12));
  EXPECT_EQ(sink.completed(), Iota(12));
  EXPECT_TRUE(sink.all_equal());
}

TEST_F(ViewGpuTest, RunsOfBothMemoriesKeepTheirOrder) {
  Start("mixed");
  CheckingSink sink = DeviceSink(0, 8);
  const absl::Status status = Read(Lease(8), 0, 8, sink);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_THAT(sink.device_calls(), ElementsAre(2, 2, 2)) << "every third slot is in host memory";
  EXPECT_EQ(sink.completed(), Iota(8));
  EXPECT_TRUE(sink.all_equal());
}

TEST_F(ViewGpuTest, AnExtentIsSharedOncePerAttachment) {
  Start("device");
  const LeaseId lease = Lease(6);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 5; ++i) {
        CheckingSink sink = DeviceSink(0, 6);
        EXPECT_TRUE(Read(lease, 0, 6, sink).ok());
        EXPECT_TRUE(sink.all_equal());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const ReservationId reservation = host_->Reserve(3, kBytes);
  PatternSource source(5, Iota(3), kBytes, -1, CopyByGpu);
  EXPECT_TRUE(lane_->Write({reservation, Iota(3), kBytes}, source, Soon()).ok());
  EXPECT_EQ(host_->Shares(), 1u);
}

// ---- Host memory, by a device's copy engine

TEST_F(ViewGpuTest, AnExtentInHostMemoryIsPinnedOnceAndThenGivenWhole) {
  Start("host");
  const LeaseId lease = Lease(6);
  ASSERT_TRUE(Eventually([&] {
    CheckingSink sink = DeviceSink(0, 6);
    EXPECT_TRUE(Read(lease, 0, 6, sink).ok());
    EXPECT_EQ(sink.completed(), Iota(6));
    EXPECT_TRUE(sink.all_equal());
    return sink.pinned_calls() == std::vector<uint32_t>{6};
  })) << "blocks go one by one for ever";
  EXPECT_EQ(UseOfFakeGpu().pinned, 1u);
  // What a reader may not write to is pinned once more for a writer.
  ASSERT_TRUE(Eventually([&] {
    const ReservationId reservation = host_->Reserve(3, kBytes);
    PatternSource source(5, Iota(3), kBytes, -1, CopyByGpu);
    EXPECT_TRUE(lane_->Write({reservation, Iota(3), kBytes}, source, Soon()).ok());
    EXPECT_EQ(host_->BytesWritten(reservation, 2), kBytes);
    return source.pinned_calls() == std::vector<uint32_t>{3};
  })) << "slots are filled one by one for ever";
  EXPECT_EQ(UseOfFakeGpu().pinned, 2u);
  CheckingSink host_only({.first = 0, .blocks = 6, .block_bytes = kBytes});
  EXPECT_TRUE(Read(lease, 0, 6, host_only).ok());
  EXPECT_THAT(host_only.pinned_calls(), IsEmpty()) << "a sink in host memory has no use for it";
}

TEST_F(ViewGpuTest, ASourceThatFailsInPinnedSlotsHasWrittenWhatCameBefore) {
  Start("host");
  ASSERT_TRUE(Eventually([&] {
    PatternSource source(5, Iota(1), kBytes, -1, CopyByGpu);
    EXPECT_TRUE(lane_->Write({host_->Reserve(1, kBytes), Iota(1), kBytes}, source, Soon()).ok());
    return UseOfFakeGpu().pinned == 1;
  }));
  const ReservationId reservation = host_->Reserve(5, kBytes);
  PatternSource source(5, Iota(5), kBytes, /*fail_at=*/3, CopyByGpu);
  EXPECT_TRUE(absl::IsAborted(lane_->Write({reservation, Iota(5), kBytes}, source, Soon())));
  EXPECT_EQ(host_->BytesWritten(reservation, 2), kBytes);
  EXPECT_EQ(host_->BytesWritten(reservation, 3), 0u);
}

// ---- Nothing to map it with

TEST_F(ViewGpuTest, WithoutAGpuHereTheLaneIsDownForBlocksInDeviceMemoryAlone) {
  ConfigureFakeGpu({.devices = 0});
  Start("mixed");
  const LeaseId lease = Lease(6);
  // Block 2 is in host memory, 3 is not.
  CheckingSink sink({.first = 2, .blocks = 4, .block_bytes = kBytes});
  const absl::Status status = Read(lease, 2, 4, sink);
  EXPECT_TRUE(IsLaneDown(status)) << status;
  EXPECT_THAT(sink.completed(), ElementsAre(0));
  EXPECT_TRUE(sink.all_equal());
  EXPECT_EQ(host_->Shares(), 0u) << "an extent that nobody maps is lost to others for nothing";
  CheckingSink host_only({.first = 2, .blocks = 1, .block_bytes = kBytes});
  EXPECT_TRUE(Read(lease, 2, 1, host_only).ok());

  const ReservationId reservation = host_->Reserve(2, kBytes);
  PatternSource source(5, Iota(2), kBytes);
  EXPECT_TRUE(IsLaneDown(lane_->Write({reservation, Iota(2), kBytes}, source, Soon())));
  EXPECT_EQ(host_->BytesWritten(reservation, 0), 0u);
}

TEST_F(ViewGpuTest, WhereIpcIsRefusedTheLaneIsDownAndDoesNotAskEveryTime) {
  Start("device", "ipc=refuse");
  const LeaseId lease = Lease(2);
  for (int i = 0; i < 3; ++i) {
    CheckingSink sink = DeviceSink(0, 2);
    const absl::Status status = Read(lease, 0, 2, sink);
    EXPECT_TRUE(IsLaneDown(status)) << status;
    EXPECT_THAT(sink.completed(), IsEmpty());
  }
  EXPECT_EQ(host_->Shares(), 1u);
  EXPECT_TRUE(host_->AwaitNoPins(absl::Seconds(30)));
}

TEST_F(ViewGpuTest, WhereOurDriverRefusesIpcTheLaneIsDownAndNothingStaysShared) {
  ConfigureFakeGpu({.ipc = false});
  Start("device");
  const LeaseId lease = Lease(2);
  for (int i = 0; i < 3; ++i) {
    CheckingSink sink = DeviceSink(0, 2);
    EXPECT_TRUE(IsLaneDown(Read(lease, 0, 2, sink)));
  }
  EXPECT_EQ(host_->Shares(), 1u);
  host_->EndAttachment();
  lane_.reset();
  EXPECT_TRUE(Eventually([&] { return host_->Unshared() == 1; }));
}

TEST_F(ViewGpuTest, AnotherGpuNeedsPeerAccess) {
  ConfigureFakeGpu({.first = 1, .peers = false});
  Start("device");
  CheckingSink sink = DeviceSink(0, 2);
  const absl::Status status = Read(Lease(2), 0, 2, sink);
  EXPECT_TRUE(IsLaneDown(status)) << status;
  EXPECT_NE(status.message().find("peer access"), absl::string_view::npos) << status;

  ConfigureFakeGpu({.first = 1, .peers = true});
  Start("device");
  CheckingSink other = DeviceSink(0, 2);
  EXPECT_TRUE(Read(Lease(2), 0, 2, other).ok());
  EXPECT_TRUE(other.all_equal());
}

TEST_F(ViewGpuTest, HostMemoryIsCopiedByTheGpuThatTheBlocksAreOn) {
  // The thread's current GPU is another one, which cannot reach them.
  ConfigureFakeGpu({.devices = 3, .peers = false});
  Start("device", "first=2");
  EXPECT_EQ(kernels::CurrentDevice(), 0);
  CheckingSink sink({.first = 0, .blocks = 2, .block_bytes = kBytes});
  const absl::Status status = Read(Lease(2), 0, 2, sink);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(sink.completed(), Iota(2));
  EXPECT_TRUE(sink.all_equal());
  const ReservationId reservation = host_->Reserve(2, kBytes);
  PatternSource source(5, Iota(2), kBytes);
  EXPECT_TRUE(lane_->Write({reservation, Iota(2), kBytes}, source, Soon()).ok());
  EXPECT_EQ(host_->BytesWritten(reservation, 1), kBytes);
  EXPECT_EQ(kernels::CurrentDevice(), 0);

  // Without it, the current one does it where it can.
  lane_.reset();
  ConfigureFakeGpu({.first = 1, .peers = true});
  Start("device");
  CheckingSink other({.first = 0, .blocks = 2, .block_bytes = kBytes});
  EXPECT_TRUE(Read(Lease(2), 0, 2, other).ok());
  EXPECT_TRUE(other.all_equal());
}

// ---- Who is gone

TEST_F(ViewGpuTest, AShardThatDiesWhileMappedIsLaneDownByTheDeadline) {
  Start("device");
  const LeaseId lease = Lease(2);
  CheckingSink before = DeviceSink(0, 2);
  ASSERT_TRUE(Read(lease, 0, 2, before).ok());
  host_->Kill();
  CheckingSink after = DeviceSink(0, 2);
  EXPECT_TRUE(IsLaneDown(Read(lease, 0, 2, after)));
  EXPECT_THAT(after.completed(), IsEmpty());
}

TEST_F(ViewGpuTest, AShardThatDiesWhileItIsWrittenToIsLaneDown) {
  Start("device");
  const ReservationId reservation = host_->Reserve(3, kBytes);
  bool killed = false;
  PatternSource source(5, Iota(3), kBytes, -1,
                       [&](uint8_t* to, const uint8_t* from, uint64_t bytes) {
                         if (!std::exchange(killed, true)) host_->Kill();
                         CopyByGpu(to, from, bytes);
                       });
  const absl::Status status = lane_->Write({reservation, Iota(3), kBytes}, source, Soon());
  EXPECT_TRUE(IsLaneDown(status)) << status;
}

TEST_F(ViewGpuTest, SharesEndWhenTheAttachmentEndedAndTheLastMappingIsGone) {
  Start("device");
  CheckingSink sink = DeviceSink(0, 2);
  ASSERT_TRUE(Read(Lease(2), 0, 2, sink).ok());
  host_->EndAttachment();
  EXPECT_EQ(host_->Unshared(), 0u);
  lane_.reset();
  EXPECT_TRUE(Eventually([&] { return host_->Unshared() == 1; }));
}

// A whole hbm pool with one extent for each of two key spaces, and callers in processes that die.
TEST_F(ViewGpuTest, AnExtentGoesToAnotherKeySpaceOnlyWhenTheProcessThatMappedItIsGone) {
  auto pool = *shard::HbmPool::Create(*shard::OpenHbmDevice(0), 4 << 20);
  ASSERT_EQ(pool->extents(), 2u);
  const KeySpaceId ours(1), theirs(2);
  {
    HbmSlots slots(*pool, ours);
    std::vector<shard::SlotRef> taken;
    MemoryLaneHost host(
        kAttachment, [&](uint64_t bytes) { return slots.Allocate(bytes); }, CopyByGpu);
    auto server = *ViewServer::Create({.host = &host, .exporter = &slots});
    const LeaseId lease = host.Lease({.blocks = 2, .block_bytes = kBytes});
    Process reader({REPRISE_VIEW_READER_FAKE_GPU, server->address(),
                    std::to_string(kAttachment.value), std::to_string(lease.value), "2",
                    std::to_string(kBytes)});
    EXPECT_EQ(reader.ReadLine(absl::Seconds(60)), "read");
    // The blocks are gone from the pool; the other extent is taken too.
    for (const uint32_t index : {0u, 1u}) pool->Free({pool->ExtentsOf(ours).at(0), index});
    const auto first = pool->Allocate(theirs, pool->extent_bytes());
    ASSERT_TRUE(first.has_value());
    server->EndAttachment(kAttachment);
    EXPECT_FALSE(pool->Allocate(theirs, pool->extent_bytes()).has_value())
        << "a living process has it mapped";
    reader.Signal(SIGKILL);
    std::optional<shard::SlotRef> second;
    EXPECT_TRUE(Eventually([&] {
      second = pool->Allocate(theirs, pool->extent_bytes());
      return second.has_value();
    }));
    server.reset();
  }
  pool.reset();
}

}  // namespace
}  // namespace reprise::lanes
