#include "cluster/lanes/view/view_server.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/synchronization/notification.h"
#include "cluster/lanes/fallback_lane.h"
#include "cluster/lanes/in_process/in_process_lane.h"
#include "cluster/lanes/lane_status.h"
#include "cluster/lanes/view/view_lane.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/types/limits.h"
#include "tests/support/forwarding_lane_host.h"
#include "tests/support/lane_ends.h"
#include "tests/support/view_host/memfd_extents.h"
#include "tests/support/view_host/view_host_process.h"

namespace reprise::lanes {
namespace {

using reprise::testing::CheckingSink;
using reprise::testing::Iota;
using reprise::testing::MemfdExtents;
using reprise::testing::MemoryLaneHost;
using reprise::testing::PatternSource;
using reprise::testing::ViewHostProcess;

constexpr AttachmentId kAttachment(31);
const MonotonicDeadline kSoon = MonotonicDeadline::After(absl::Minutes(2));
absl::Time Soon() {
  return absl::Now() + absl::Seconds(30);
}

class ViewServerTest : public ::testing::Test {
 protected:
  std::unique_ptr<ViewLane> Connect(AttachmentId attachment = kAttachment) {
    auto lane = ViewLane::Connect({.socket = server_->address(), .attachment = attachment}, Soon());
    EXPECT_TRUE(lane.ok()) << lane.status();
    return lane.ok() ? *std::move(lane) : nullptr;
  }
  // A caller that speaks the protocol by hand.
  view::ViewSocket Dial() {
    view::ViewSocket socket = *view::ViewSocket::Connect(server_->address(), kSoon);
    EXPECT_TRUE(socket.Send(view::Hello{kAttachment}, kSoon).ok());
    EXPECT_TRUE(socket.ReceiveOnly<view::Outcome>(kSoon)->status.ok());
    return socket;
  }
  view::Places Open(view::ViewSocket& socket, LeaseId lease, uint32_t blocks,
                    uint64_t block_bytes) {
    EXPECT_TRUE(socket.Send(view::OpenRead{lease, 0, blocks, block_bytes}, kSoon).ok());
    return *socket.ReceiveOnly<view::Places>(kSoon);
  }

  MemfdExtents extents_;
  MemoryLaneHost host_{kAttachment, [this](uint64_t bytes) { return extents_.Allocate(bytes); }};
  std::unique_ptr<ViewServer> server_ =
      *ViewServer::Create({.host = &host_, .exporter = &extents_});
};

TEST_F(ViewServerTest, AReaderThatDiesLetsGoOfItsPins) {
  const LeaseId lease = host_.Lease({.blocks = 3, .block_bytes = 4096});
  {
    view::ViewSocket socket = Dial();
    EXPECT_EQ(Open(socket, lease, 3, 4096).places.size(), 3u);
    EXPECT_EQ(host_.PinsHeld(), 3u);
  }
  EXPECT_TRUE(host_.AwaitNoPins(absl::Seconds(30)));
}

TEST_F(ViewServerTest, AnAttachmentThatEndsLeavesAReadersPinsUntilTheReaderIsGone) {
  const LeaseId lease = host_.Lease({.blocks = 3, .block_bytes = 4096});
  {
    view::ViewSocket socket = Dial();
    EXPECT_EQ(Open(socket, lease, 3, 4096).places.size(), 3u);
    server_->EndAttachment(kAttachment);
    EXPECT_FALSE(socket.Receive(kSoon).ok());
    EXPECT_EQ(host_.PinsHeld(), 3u);
  }
  EXPECT_TRUE(host_.AwaitNoPins(absl::Seconds(30)));
}

// Adds up what was read.
class ReadCounter final : public reprise::testing::ForwardingLaneHost {
 public:
  using ForwardingLaneHost::ForwardingLaneHost;
  void ReadOut(uint64_t more_blocks, uint64_t more_bytes) override {
    blocks += more_blocks;
    bytes += more_bytes;
  }
  std::atomic<uint64_t> blocks{0}, bytes{0};
};

TEST_F(ViewServerTest, BlocksCountAsReadOnceTheyAreDeliveredAndNotBefore) {
  ReadCounter counter(host_);
  const absl::Cleanup server_first = [this] { server_.reset(); };
  server_ = *ViewServer::Create({.host = &counter, .exporter = &extents_});
  const auto lane = Connect();
  const LeaseId lease = host_.Lease({.blocks = 5, .block_bytes = 4096});
  const auto read = [&](LeaseId from, uint32_t blocks, int64_t fail_at) {
    CheckingSink sink({.blocks = blocks, .block_bytes = 4096, .fail_at = fail_at});
    return lane->Read({from, 0, blocks, 4096}, sink, Soon());
  };
  // An end is not answered; the next answer on the lane's one connection comes after it.
  const auto settle = [&] { EXPECT_FALSE(read(LeaseId(666), 1, -1).ok()); };
  EXPECT_TRUE(read(lease, 5, -1).ok());
  settle();
  EXPECT_EQ(counter.blocks, 5u);
  EXPECT_EQ(counter.bytes, 5u * 4096);
  EXPECT_FALSE(read(lease, 5, 2).ok());
  settle();
  EXPECT_EQ(counter.blocks, 7u);

  view::ViewSocket socket = Dial();
  EXPECT_EQ(Open(socket, lease, 3, 4096).places.size(), 3u);
  ASSERT_TRUE(socket.Send(view::Done{99}, kSoon).ok());
  settle();
  EXPECT_EQ(Open(socket, lease, 3, 4096).places.size(), 3u);
  EXPECT_EQ(counter.blocks, 10u) << "more than was opened cannot have been read";
}

TEST_F(ViewServerTest, AnotherAttachmentsIdOpensNothing) {
  const auto lane = Connect(AttachmentId(666));
  CheckingSink sink({.blocks = 1, .block_bytes = 4096});
  const LeaseId lease = host_.Lease({.blocks = 1, .block_bytes = 4096});
  EXPECT_EQ(lane->Read({lease, 0, 1, 4096}, sink, Soon()).code(), absl::StatusCode::kNotFound);
}

TEST_F(ViewServerTest, AnExtentThatIsNotOpenIsNotHandedOut) {
  view::ViewSocket socket = Dial();
  ASSERT_TRUE(socket.Send(view::MapExtent{1}, kSoon).ok());
  EXPECT_EQ(socket.ReceiveOnly<view::Extent>(kSoon)->status.code(),
            absl::StatusCode::kPermissionDenied);
  const LeaseId lease = host_.Lease({.blocks = 1, .block_bytes = 4096});
  const view::Places places = Open(socket, lease, 1, 4096);
  ASSERT_TRUE(socket.Send(view::Done{}, kSoon).ok());
  ASSERT_TRUE(socket.Send(view::MapExtent{places.places.at(0).extent}, kSoon).ok());
  EXPECT_EQ(socket.ReceiveOnly<view::Extent>(kSoon)->status.code(),
            absl::StatusCode::kPermissionDenied);
}

TEST_F(ViewServerTest, AReadersDescriptorCannotBeMappedForWriting) {
  view::ViewSocket socket = Dial();
  const LeaseId lease = host_.Lease({.blocks = 1, .block_bytes = 4096});
  const view::Places places = Open(socket, lease, 1, 4096);
  ASSERT_TRUE(socket.Send(view::MapExtent{places.places.at(0).extent}, kSoon).ok());
  Descriptor file;
  const view::Extent extent = *socket.ReceiveOnly<view::Extent>(kSoon, &file);
  ASSERT_TRUE(extent.status.ok()) << extent.status;
  ASSERT_TRUE(file);
  EXPECT_EQ(::mmap(nullptr, extent.extent_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0),
            MAP_FAILED);
  void* base = ::mmap(nullptr, extent.extent_bytes, PROT_READ, MAP_SHARED, file.get(), 0);
  ASSERT_NE(base, MAP_FAILED);
  ::munmap(base, extent.extent_bytes);
}

TEST_F(ViewServerTest, WrittenIsRefusedForMoreThanWasOpened) {
  view::ViewSocket socket = Dial();
  const ReservationId reservation = host_.Reserve(3, 4096);
  ASSERT_TRUE(socket.Send(view::OpenWrite{reservation, 4096, {0, 1}}, kSoon).ok());
  EXPECT_EQ(socket.ReceiveOnly<view::Places>(kSoon)->places.size(), 2u);
  ASSERT_TRUE(socket.Send(view::Written{3}, kSoon).ok());
  EXPECT_FALSE(socket.ReceiveOnly<view::Outcome>(kSoon)->status.ok());
  EXPECT_EQ(host_.BytesWritten(reservation, 0), 0u);
  ASSERT_TRUE(socket.Send(view::Written{1}, kSoon).ok());
  EXPECT_FALSE(socket.ReceiveOnly<view::Outcome>(kSoon)->status.ok()) << "the opening is over";
}

TEST_F(ViewServerTest, ACallerThatTalksNonsenseIsCutOff) {
  for (const view::Message& nonsense :
       {view::Message(view::Written{1}), view::Message(view::Outcome{}),
        view::Message(view::Extent{})}) {
    view::ViewSocket socket = *view::ViewSocket::Connect(server_->address(), kSoon);
    ASSERT_TRUE(socket.Send(nonsense, kSoon).ok());
    EXPECT_TRUE(IsLaneDown(socket.Receive(kSoon).status()));
  }
  view::ViewSocket socket = Dial();
  ASSERT_TRUE(socket.Send(view::Places{}, kSoon).ok());
  EXPECT_TRUE(IsLaneDown(socket.Receive(kSoon).status()));
}

TEST_F(ViewServerTest, ConnectionsAreBounded) {
  std::vector<view::ViewSocket> crowd;
  for (size_t i = 0; i < limits::kViewConnectionsMax; ++i) crowd.push_back(Dial());
  EXPECT_EQ(server_->connections(), limits::kViewConnectionsMax);
  const auto refused =
      ViewLane::Connect({.socket = server_->address(), .attachment = kAttachment}, Soon());
  EXPECT_TRUE(IsLaneDown(refused.status())) << refused.status();
  crowd.clear();
}

TEST_F(ViewServerTest, MemoryThatCannotBeSharedIsLeftToAnotherLane) {
  MemoryLaneHost heap(kAttachment);
  const auto server = *ViewServer::Create({.host = &heap, .exporter = &extents_});
  const auto lane =
      *ViewLane::Connect({.socket = server->address(), .attachment = kAttachment}, Soon());
  const LeaseId lease = heap.Lease({.blocks = 2, .block_bytes = 4096});
  CheckingSink sink({.blocks = 2, .block_bytes = 4096});
  EXPECT_TRUE(IsLaneDown(lane->Read({lease, 0, 2, 4096}, sink, Soon())));
  EXPECT_THAT(sink.completed(), ::testing::IsEmpty());
  EXPECT_TRUE(heap.AwaitNoPins(absl::Seconds(30)));
}

TEST_F(ViewServerTest, AnExtentThatCouldShrinkIsNotMapped) {
  MemfdExtents unsealed(/*sealed=*/false);
  MemoryLaneHost host(kAttachment, [&](uint64_t bytes) { return unsealed.Allocate(bytes); });
  const auto server = *ViewServer::Create({.host = &host, .exporter = &unsealed});
  const auto lane =
      *ViewLane::Connect({.socket = server->address(), .attachment = kAttachment}, Soon());
  CheckingSink sink({.blocks = 1, .block_bytes = 4096});
  const LeaseId lease = host.Lease({.blocks = 1, .block_bytes = 4096});
  EXPECT_TRUE(IsLaneDown(lane->Read({lease, 0, 1, 4096}, sink, Soon())));
}

TEST_F(ViewServerTest, AReadGoesOnByAnotherLaneWhenTheServerIsGone) {
  std::vector<std::unique_ptr<Lane>> lanes;
  lanes.push_back(Connect());
  lanes.push_back(std::make_unique<InProcessLane>(&host_, kAttachment));
  FallbackLane lane(std::move(lanes));
  const LeaseId lease = host_.Lease({.blocks = 4, .block_bytes = 4096});
  CheckingSink before({.blocks = 4, .block_bytes = 4096});
  EXPECT_TRUE(lane.Read({lease, 0, 4, 4096}, before, Soon()).ok());
  EXPECT_EQ(lane.kind(), LaneKind::kView);
  server_.reset();
  for (int i = 0; i < 3; ++i) {
    CheckingSink after({.blocks = 4, .block_bytes = 4096});
    EXPECT_TRUE(lane.Read({lease, 0, 4, 4096}, after, Soon()).ok());
    EXPECT_EQ(after.completed(), Iota(4));
    EXPECT_TRUE(after.all_equal());
    EXPECT_EQ(lane.kind(), LaneKind::kInProcess);
  }
}

TEST(ViewProcessTest, AShardThatIsKilledIsALaneThatIsDown) {
  ViewHostProcess process(kAttachment);
  const auto lane =
      *ViewLane::Connect({.socket = process.address(), .attachment = kAttachment}, Soon());
  const LeaseId lease = process.Lease({.blocks = 4, .block_bytes = 100'000});
  // Killed between two blocks: what is mapped stays readable, and what comes after is refused.
  class KillingSink final : public BlockSink {
   public:
    explicit KillingSink(ViewHostProcess& process) : process_(process) {}
    std::span<uint8_t> Buffer(uint32_t) override { return {}; }
    absl::Status Complete(uint32_t) override { return absl::InternalError("copied"); }
    absl::Status Deliver(uint32_t i, std::span<const uint8_t> bytes) override {
      if (i == 1) process_.Kill();
      const auto expected = reprise::testing::PatternBlock(1, i, bytes.size());
      EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), expected.begin()));
      return absl::OkStatus();
    }

   private:
    ViewHostProcess& process_;
  } sink(process);
  EXPECT_TRUE(lane->Read({lease, 0, 4, 100'000}, sink, Soon()).ok());
  CheckingSink later({.blocks = 4, .block_bytes = 100'000});
  EXPECT_TRUE(IsLaneDown(lane->Read({lease, 0, 4, 100'000}, later, Soon())));
  EXPECT_THAT(later.completed(), ::testing::IsEmpty());
}

TEST(ViewProcessTest, AShardThatIsStoppedCostsOneDeadline) {
  ViewHostProcess process(kAttachment);
  const auto lane =
      *ViewLane::Connect({.socket = process.address(), .attachment = kAttachment}, Soon());
  const LeaseId lease = process.Lease({.blocks = 4, .block_bytes = 100'000});
  process.Pause();
  CheckingSink sink({.blocks = 4, .block_bytes = 100'000});
  const absl::Status status =
      lane->Read({lease, 0, 4, 100'000}, sink, absl::Now() + absl::Milliseconds(200));
  process.Resume();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_THAT(sink.completed(), ::testing::IsEmpty());
  EXPECT_TRUE(process.AwaitNoPins(absl::Seconds(30)));
  EXPECT_TRUE(lane->Read({lease, 0, 4, 100'000}, sink, Soon()).ok());
}

TEST(ViewLaneTest, ASocketThatIsNotThereIsALaneThatIsDown) {
  for (const std::string& socket :
       {std::string("@reprise-view-nobody"), std::string("/nowhere/socket"), std::string(),
        std::string(200, 'x')}) {
    EXPECT_TRUE(IsLaneDown(
        ViewLane::Connect({.socket = socket, .attachment = kAttachment}, Soon()).status()));
  }
}

}  // namespace
}  // namespace reprise::lanes
