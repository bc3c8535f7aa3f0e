// What one connection asks for: reads and writes that go well, and those that do not.
#include "cluster/lanes/tcp/call_server.h"

#include <atomic>
#include <thread>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "proto/types/limits.h"
#include "tests/support/device_lane_host.h"
#include "tests/support/forwarding_lane_host.h"
#include "tests/unit/lanes/tcp/tcp_server_fixture.h"

namespace reprise::lanes {
namespace {

using reprise::testing::CheckingSink;
using reprise::testing::DeviceLaneHost;
using reprise::testing::ForwardingLaneHost;
using reprise::testing::Iota;
using reprise::testing::PatternBlock;
using reprise::testing::PatternSource;

using CallServerTest = TcpServerTest;

TEST_F(CallServerTest, AWriterThatGoesAwayInTheMiddleOfABlockHasNotWrittenIt) {
  Serve();
  const ReservationId reservation = host_.Reserve(2, 100'000);
  const std::vector<uint8_t> block = PatternBlock(1, 0, 100'000);
  {
    tcp::DataSocket writer = Dial();
    ASSERT_TRUE(writer.Send(tcp::Write{reservation, 100'000}, kSoon).ok());
    ASSERT_TRUE(writer.SendBlock(0, block, kSoon).ok());
    ASSERT_TRUE(writer.BeginBlock(1, 100'000, kSoon).ok());
    ASSERT_TRUE(writer.SendBlockPart(std::span(block).first(99'999), kSoon).ok());
  }
  EXPECT_TRUE(AwaitConnections(0));
  EXPECT_EQ(host_.BytesWritten(reservation, 0), 100'000u);
  EXPECT_EQ(host_.BytesWritten(reservation, 1), 0u);
  EXPECT_TRUE(host_.AwaitNoPins(absl::Seconds(30)));
}

TEST_F(CallServerTest, ARefusalLeavesTheConnectionForTheNextCall) {
  Serve();
  const auto lane = Connect();
  EXPECT_EQ(Read(*lane, LeaseId(666), 1, 4096).code(), absl::StatusCode::kNotFound);
  const ReservationId reservation = host_.Reserve(40, 1 << 20);
  host_.RefuseWrites(reservation, 1);
  PatternSource source(1, Iota(40), 1 << 20);
  EXPECT_EQ(lane->Write({reservation, Iota(40), 1 << 20}, source, Soon()).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(Read(*lane, host_.Lease({.blocks = 3, .block_bytes = 512}), 3, 512).ok());
  EXPECT_EQ(server_->use().connections, 1u);
}

TEST_F(CallServerTest, ReadsOfNoBlocksOrTooManyAreRefused) {
  Serve();
  tcp::DataSocket socket = Dial();
  const LeaseId lease = host_.Lease({.blocks = 1, .block_bytes = 512});
  for (const uint32_t blocks : {0u, static_cast<uint32_t>(limits::kPromptBlocksMax) + 1}) {
    ASSERT_TRUE(socket.Send(tcp::Read{lease, 0, blocks, 512}, kSoon).ok());
    EXPECT_EQ(socket.ReceiveOnly<tcp::Outcome>(kSoon)->status.code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST_F(CallServerTest, WhatIsNotAdmittedIsRefusedAndTheNextCallIsNot) {
  std::atomic<int> reads{0}, writes{0}, files{0};
  const auto once = [](std::atomic<int>& asked) -> TcpGuards::Admit {
    return [&asked]() -> absl::StatusOr<std::shared_ptr<const void>> {
      if (asked++ == 0) return absl::ResourceExhaustedError("too much at once");
      return nullptr;
    };
  };
  DeviceLaneHost disk(host_, MemoryKind::kFile);
  const absl::Cleanup server_first = [this] { server_.reset(); };
  Serve(
      {.host = &disk, .guards = {.read = once(reads), .file = once(files), .write = once(writes)}});
  const auto lane = Connect();
  const LeaseId lease = host_.Lease({.blocks = 2, .block_bytes = 512});
  EXPECT_EQ(Read(*lane, lease, 2, 512).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(files, 0);
  EXPECT_EQ(Read(*lane, lease, 2, 512).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(files, 1);
  EXPECT_TRUE(Read(*lane, lease, 2, 512).ok());
  const ReservationId reservation = host_.Reserve(2, 512);
  for (const bool admitted : {false, true}) {
    PatternSource source(1, Iota(2), 512);
    EXPECT_EQ(lane->Write({reservation, Iota(2), 512}, source, Soon()).code(),
              admitted ? absl::StatusCode::kOk : absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(host_.BytesWritten(reservation, 1), admitted ? 512u : 0u);
  }
  EXPECT_EQ(server_->use().connections, 1u);
}

TEST_F(CallServerTest, HostMemoryAsksForNoDisk) {
  std::atomic<int> files{0};
  Serve({.host = &host_,
         .guards = {.read = {},
                    .file =
                        [&] {
                          ++files;
                          return absl::StatusOr<std::shared_ptr<const void>>(nullptr);
                        },
                    .write = {}}});
  const auto lane = Connect();
  EXPECT_TRUE(Read(*lane, host_.Lease({.blocks = 2, .block_bytes = 512}), 2, 512).ok());
  EXPECT_EQ(files, 0);
}

// Fails a copy out of device memory, and adds up what was read.
class WatchedHost final : public ForwardingLaneHost {
 public:
  using ForwardingLaneHost::ForwardingLaneHost;
  absl::Status CopyToHost(std::span<const uint8_t> device, std::span<uint8_t> host) override {
    if (copies++ == fail_at) return absl::InternalError("the device has gone");
    return ForwardingLaneHost::CopyToHost(device, host);
  }
  void ReadOut(uint64_t more_blocks, uint64_t more_bytes) override {
    blocks += more_blocks;
    bytes += more_bytes;
  }
  std::atomic<int> copies{0}, fail_at{-1};
  std::atomic<uint64_t> blocks{0}, bytes{0};
};

TEST_F(CallServerTest, ABlockThatCannotBeReadEndsTheReadThere) {
  DeviceLaneHost device(host_);
  WatchedHost watched(device);
  const absl::Cleanup server_first = [this] { server_.reset(); };
  Serve({.host = &watched});
  const auto lane = Connect();
  const LeaseId small = host_.Lease({.blocks = 5, .block_bytes = 512});
  watched.fail_at = 3;
  CheckingSink sink({.blocks = 5, .block_bytes = 512});
  EXPECT_EQ(lane->Read({small, 0, 5, 512}, sink, Soon()).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(sink.completed(), Iota(3));
  EXPECT_EQ(watched.blocks, 3u);
  EXPECT_EQ(watched.bytes, 3u * 512);
  EXPECT_EQ(server_->use().connections, 1u) << "told, and the connection is good for more";
  // In the middle of a block there is no place for a word: another lane is asked.
  const uint64_t large_bytes = 3 * limits::kStreamChunkBytes;
  const LeaseId large = host_.Lease({.blocks = 2, .block_bytes = large_bytes});
  watched.copies = 0;
  watched.fail_at = 4;
  EXPECT_TRUE(IsLaneDown(Read(*lane, large, 2, large_bytes)));
  EXPECT_EQ(watched.blocks, 4u);
  watched.fail_at = -1;
  EXPECT_TRUE(Read(*lane, large, 2, large_bytes).ok());
}

// Refuses what was written, or the copy of it into device memory.
class RefusingHost final : public ForwardingLaneHost {
 public:
  using ForwardingLaneHost::ForwardingLaneHost;
  absl::Status Written(AttachmentId attachment, ReservationId reservation, uint32_t block,
                       uint64_t bytes) override {
    if (block == refused_block) return absl::FailedPreconditionError("not that one");
    return ForwardingLaneHost::Written(attachment, reservation, block, bytes);
  }
  absl::Status CopyToDevice(std::span<const uint8_t> host, std::span<uint8_t> device) override {
    if (copies++ == fail_at) return absl::InternalError("the device has gone");
    return ForwardingLaneHost::CopyToDevice(host, device);
  }
  std::atomic<uint32_t> refused_block{~0u};
  std::atomic<int> copies{0}, fail_at{-1};
};

TEST_F(CallServerTest, AWriteThatIsOkWasTakenWhole) {
  DeviceLaneHost device(host_);
  RefusingHost refusing(device);
  const absl::Cleanup server_first = [this] { server_.reset(); };
  Serve({.host = &refusing});
  const auto lane = Connect();
  const auto write = [&](ReservationId reservation, uint32_t blocks, uint64_t block_bytes) {
    PatternSource source(1, Iota(blocks), block_bytes);
    return lane->Write({reservation, Iota(blocks), block_bytes}, source, Soon()).code();
  };
  refusing.refused_block = 2;
  const ReservationId one = host_.Reserve(5, 512);
  EXPECT_EQ(write(one, 5, 512), absl::StatusCode::kFailedPrecondition);
  for (uint32_t i = 0; i < 5; ++i) EXPECT_EQ(host_.BytesWritten(one, i), i < 2 ? 512u : 0u) << i;
  refusing.refused_block = ~0u;
  // At the start of a block, and in the middle of one.
  const uint64_t large = 3 * limits::kStreamChunkBytes;
  for (const int fail_at : {3, 4}) {
    refusing.copies = 0;
    refusing.fail_at = fail_at;
    const ReservationId two = host_.Reserve(3, large);
    EXPECT_EQ(write(two, 3, large), absl::StatusCode::kInternal);
    for (uint32_t i = 0; i < 3; ++i) EXPECT_EQ(host_.BytesWritten(two, i), i < 1 ? large : 0u) << i;
  }
  refusing.fail_at = -1;
  for (const uint64_t bytes : {4095, 4097, 8192}) {
    const ReservationId three = host_.Reserve(2, 4096);
    EXPECT_EQ(write(three, 2, bytes), absl::StatusCode::kInvalidArgument) << bytes;
    EXPECT_EQ(host_.BytesWritten(three, 0), 0u) << bytes;
  }
  EXPECT_EQ(write(host_.Reserve(2, 4096), 2, 4096), absl::StatusCode::kOk);
  EXPECT_EQ(server_->use().connections, 1u);
}

// One block in memory and one on a disk, whichever comes first.
class MixedHost final : public ForwardingLaneHost {
 public:
  MixedHost(lanes::LaneHost& memory, lanes::LaneHost& disk)
      : ForwardingLaneHost(memory), disk_(disk) {}
  absl::StatusOr<std::vector<PinnedBytes>> OpenRead(AttachmentId attachment, LeaseId lease,
                                                    uint32_t first, uint32_t blocks) override {
    auto here = ForwardingLaneHost::OpenRead(attachment, lease, first, blocks);
    auto there = disk_.OpenRead(attachment, lease, first, blocks);
    if (!here.ok() || !there.ok()) return here.status();
    for (size_t i = 1; i < here->size(); ++i) (*here)[i] = (*there)[i];
    return here;
  }
  absl::Status CopyToHost(std::span<const uint8_t> from, std::span<uint8_t> host) override {
    return disk_.CopyToHost(from, host);
  }

 private:
  lanes::LaneHost& disk_;
};

TEST_F(CallServerTest, TicketsAreHeldForAsLongAsTheirCall) {
  DeviceLaneHost disk(host_, MemoryKind::kFile);
  MixedHost mixed(host_, disk);
  std::atomic<int> held[3] = {0, 0, 0}, asked[3] = {0, 0, 0};
  const auto admit = [&](int which) -> TcpGuards::Admit {
    return [&held, &asked, which]() -> absl::StatusOr<std::shared_ptr<const void>> {
      ++held[which];
      ++asked[which];
      return std::shared_ptr<const void>(&held[which],
                                         [&held, which](const void*) { --held[which]; });
    };
  };
  const absl::Cleanup server_first = [this] { server_.reset(); };
  Serve({.host = &mixed, .guards = {.read = admit(0), .file = admit(1), .write = admit(2)}});
  const LeaseId lease = host_.Lease({.blocks = 64, .block_bytes = 4 << 20});
  {
    tcp::DataSocket reader = Dial();
    ASSERT_TRUE(reader.Send(tcp::Read{lease, 0, 64, 4 << 20}, kSoon).ok());
    ASSERT_TRUE(reader.ReceiveHeader(kSoon).ok());
    EXPECT_EQ(held[0], 1);
    EXPECT_EQ(held[1], 1) << "some of it is on the disk, if not the first block";
    // What went out is let go of while the rest goes.
    std::vector<uint8_t> block(4 << 20);
    for (int i = 0; i < 32; ++i) {
      ASSERT_TRUE(reader.ReceiveBytes(block, kSoon).ok() && reader.ReceiveHeader(kSoon).ok());
    }
    EXPECT_LT(host_.PinsHeld(), 2u * 64);
  }
  {
    tcp::DataSocket writer = Dial();
    ASSERT_TRUE(writer.Send(tcp::Write{host_.Reserve(1, 512), 512}, kSoon).ok());
    while (asked[2] == 0) std::this_thread::yield();
    EXPECT_EQ(held[2], 1);
    ASSERT_TRUE(writer.Send(tcp::WriteEnd{}, kSoon).ok());
    ASSERT_TRUE(writer.ReceiveOnly<tcp::Outcome>(kSoon).ok());
  }
  EXPECT_TRUE(AwaitConnections(0));
  for (const int which : {0, 1, 2}) EXPECT_EQ(held[which], 0) << which;
}

}  // namespace
}  // namespace reprise::lanes
