// The caller's end against a shard that misbehaves: whatever comes, the call ends with LANE_DOWN
// and the next lane can go on.
#include "cluster/lanes/tcp/tcp_lane.h"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "cluster/lanes/lane_status.h"
#include "cluster/lanes/tcp/data_socket.h"
#include "cluster/lanes/tcp/tcp_server.h"
#include "cluster/lanes/tcp/tcp_sockets.h"
#include "gtest/gtest.h"
#include "proto/types/limits.h"
#include "tests/support/lane_ends.h"
#include "tests/support/tcp_lane_ends.h"

namespace reprise::lanes {
namespace {

using reprise::testing::AwaitReady;
using reprise::testing::CheckingSink;
using reprise::testing::Iota;
using reprise::testing::MemoryLaneHost;
using reprise::testing::PatternBlock;
using reprise::testing::PatternSource;

constexpr AttachmentId kAttachment(31);
constexpr uint64_t kBytes = 5000;
const MonotonicDeadline kSoon = MonotonicDeadline::After(absl::Minutes(2));
absl::Time Soon() {
  return absl::Now() + absl::Seconds(30);
}

// Takes one connection, says hello, hears one message, and then does as the test says.
class FakeShard {
 public:
  explicit FakeShard(std::function<void(tcp::DataSocket&)> then, bool welcomes = true)
      : thread_([this, then = std::move(then), welcomes] { Serve(then, welcomes); }) {}
  ~FakeShard() { thread_.join(); }

  TcpLane::Options address() const {
    return {.host = "127.0.0.1",
            .port = listeners_.port,
            .attachment = kAttachment,
            .key = std::nullopt};
  }

 private:
  void Serve(const std::function<void(tcp::DataSocket&)>& then, bool welcomes) {
    const Descriptor& listener = listeners_.sockets.front();
    ASSERT_TRUE(listener.Wait(POLLIN, kSoon, "test").ok());
    tcp::DataSocket socket(
        Descriptor(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)));
    if (!welcomes) {
      then(socket);
      return;
    }
    ASSERT_EQ(socket.ReceiveOnly<tcp::Hello>(kSoon)->attachment, kAttachment);
    ASSERT_TRUE(socket.Send(tcp::Outcome{absl::OkStatus()}, kSoon).ok());
    const absl::StatusOr<tcp::Header> header = socket.ReceiveHeader(kSoon);
    ASSERT_TRUE(header.ok() && socket.ReceiveMessage(*header, kSoon).ok());
    then(socket);
  }

  const tcp::Listeners listeners_ = *tcp::Listen("127.0.0.1", 0);
  std::thread thread_;
};

struct Answer {
  const char* name;
  std::function<void(tcp::DataSocket&)> give;
};

const std::vector<uint8_t>& Block() {
  static const auto* const kBlock = new std::vector<uint8_t>(PatternBlock(1, 0, kBytes));
  return *kBlock;
}

TEST(TcpLaneTest, AReadThatIsAnsweredWithNonsenseEndsThereAndTheLaneIsDown) {
  const std::vector<Answer> answers = {
      {"nothing, and the connection ends", [](tcp::DataSocket&) {}},
      {"another block", [](tcp::DataSocket& s) { s.SendBlock(1, Block(), kSoon).IgnoreError(); }},
      {"a longer block",
       [](tcp::DataSocket& s) {
         const std::vector<uint8_t> longer(kBytes + 1);
         s.SendBlock(0, longer, kSoon).IgnoreError();
       }},
      {"a shorter block",
       [](tcp::DataSocket& s) {
         s.SendBlock(0, std::span(Block()).first(kBytes - 1), kSoon).IgnoreError();
       }},
      {"half a block",
       [](tcp::DataSocket& s) {
         s.BeginBlock(0, kBytes, kSoon).IgnoreError();
         s.SendBlockPart(std::span(Block()).first(kBytes / 2), kSoon).IgnoreError();
       }},
      {"that it went well",
       [](tcp::DataSocket& s) { s.Send(tcp::Outcome{absl::OkStatus()}, kSoon).IgnoreError(); }},
      {"a caller's message",
       [](tcp::DataSocket& s) { s.Send(tcp::WriteEnd{}, kSoon).IgnoreError(); }},
      {"garbage",
       [](tcp::DataSocket& s) {
         const std::vector<uint8_t> garbage(1000, 0xA5);
         s.SendBlockPart(garbage, kSoon).IgnoreError();
       }},
  };
  for (const Answer& answer : answers) {
    SCOPED_TRACE(answer.name);
    FakeShard shard(answer.give);
    const auto lane = TcpLane::Create(shard.address());
    CheckingSink sink({.blocks = 2, .block_bytes = kBytes});
    const absl::Status status = (*lane)->Read({LeaseId(1), 0, 2, kBytes}, sink, Soon());
    EXPECT_TRUE(IsLaneDown(status)) << status;
    EXPECT_TRUE(sink.completed().empty());
  }
}

TEST(TcpLaneTest, ABlockThatCameWholeCountsWhateverComesNext) {
  FakeShard shard([](tcp::DataSocket& s) {
    s.SendBlock(0, Block(), kSoon).IgnoreError();
    s.Send(tcp::Outcome{absl::DataLossError("block 1 is gone")}, kSoon).IgnoreError();
  });
  const auto lane = TcpLane::Create(shard.address());
  CheckingSink sink({.blocks = 2, .block_bytes = kBytes});
  const absl::Status status = (*lane)->Read({LeaseId(1), 0, 2, kBytes}, sink, Soon());
  EXPECT_EQ(status, absl::DataLossError("block 1 is gone"));
  EXPECT_EQ(sink.completed(), Iota(1));
  EXPECT_TRUE(sink.all_equal());
}

TEST(TcpLaneTest, AWriteThatIsAnsweredWithNonsenseIsALaneThatIsDown) {
  const std::vector<Answer> answers = {
      {"the connection ends", [](tcp::DataSocket&) {}},
      {"a block", [](tcp::DataSocket& s) { s.SendBlock(0, Block(), kSoon).IgnoreError(); }},
      {"a caller's message",
       [](tcp::DataSocket& s) { s.Send(tcp::WriteEnd{}, kSoon).IgnoreError(); }},
  };
  for (const Answer& answer : answers) {
    SCOPED_TRACE(answer.name);
    FakeShard shard(answer.give);
    const auto lane = TcpLane::Create(shard.address());
    PatternSource source(1, Iota(400), kBytes);
    const absl::Status status =
        (*lane)->Write({ReservationId(1), Iota(400), kBytes}, source, Soon());
    EXPECT_TRUE(IsLaneDown(status)) << status;
  }
}

// Waits before it gives one of its blocks.
class WaitingSource final : public BlockSource {
 public:
  WaitingSource(uint32_t wait_at, absl::Notification& go, int64_t fail_at = -1)
      : wait_at_(wait_at), fail_at_(fail_at), go_(go) {}
  absl::StatusOr<std::span<const uint8_t>> Bytes(uint32_t i) override {
    if (i == wait_at_) go_.WaitForNotificationWithTimeout(absl::Seconds(30));
    if (i == fail_at_) return absl::AbortedError("the source has run dry");
    return std::span<const uint8_t>(Block());
  }
  absl::Status Fill(uint32_t, std::span<uint8_t>) override { return absl::UnimplementedError(""); }

 private:
  const uint32_t wait_at_;
  const int64_t fail_at_;
  absl::Notification& go_;
};

TEST(TcpLaneTest, AWriteWhoseEndComesTooSoonIsNoWrite) {
  absl::Notification said;
  FakeShard shard([&](tcp::DataSocket& s) {
    s.Send(tcp::Outcome{absl::OkStatus()}, kSoon).IgnoreError();
    said.Notify();
    // Takes what comes until the caller has had enough.
    std::vector<uint8_t> body(kBytes);
    for (auto header = s.ReceiveHeader(kSoon); header.ok() && header->is_block();
         header = s.ReceiveHeader(kSoon)) {
      if (!s.ReceiveBytes(body, kSoon).ok()) break;
    }
  });
  const auto lane = TcpLane::Create(shard.address());
  WaitingSource source(5, said);
  const absl::Status status = (*lane)->Write({ReservationId(1), Iota(10), kBytes}, source, Soon());
  EXPECT_TRUE(IsLaneDown(status)) << status;
}

TEST(TcpLaneTest, WhyASourceGaveNoMoreIsWhatTheWriteEndsWith) {
  absl::Notification gone;
  FakeShard shard([&](tcp::DataSocket& s) {
    s.Shutdown();
    gone.Notify();
  });
  const auto lane = TcpLane::Create(shard.address());
  WaitingSource source(0, gone, /*fail_at=*/0);
  const absl::Status status = (*lane)->Write({ReservationId(1), Iota(10), kBytes}, source, Soon());
  EXPECT_EQ(status.message(), "the source has run dry") << status;
}

// What comes next on it would be the call's that was given up.
TEST(TcpLaneTest, AConnectionInTheMiddleOfACallIsNotUsedAgain) {
  absl::Notification closed;
  FakeShard shard([&](tcp::DataSocket& s) {
    s.SendBlock(0, Block(), kSoon).IgnoreError();  // block 1 is still to come
    if (IsLaneDown(s.ReceiveHeader(kSoon).status())) closed.Notify();
  });
  const auto lane = TcpLane::Create(shard.address());
  CheckingSink sink({.blocks = 2, .block_bytes = kBytes, .fail_at = 0});
  EXPECT_TRUE(absl::IsAborted((*lane)->Read({LeaseId(1), 0, 2, kBytes}, sink, Soon())));
  EXPECT_TRUE(closed.WaitForNotificationWithTimeout(absl::Seconds(10))) << "kept for a next call";
}

// A host with a lease, on a port, and how one reaches it.
class RealShard {
 public:
  RealShard() { EXPECT_TRUE(server_->Welcome(kAttachment).ok()); }
  TcpLane::Options address() const {
    return {.host = "127.0.0.1",
            .port = server_->port(),
            .attachment = kAttachment,
            .key = std::nullopt};
  }
  absl::Status Read(TcpLane& lane) {
    CheckingSink sink({.blocks = 1, .block_bytes = kBytes});
    return lane.Read({lease_, 0, 1, kBytes}, sink, Soon());
  }
  MemoryLaneHost& host() { return host_; }
  void Stop() { server_.reset(); }

 private:
  MemoryLaneHost host_{kAttachment};
  const LeaseId lease_ = host_.Lease({.blocks = 1, .block_bytes = kBytes});
  std::unique_ptr<TcpServer> server_ = *TcpServer::Create({.host = &host_});
};

TEST(TcpLaneTest, IsReadyOnceItsPortWasReachedAndNotWhileItFails) {
  RealShard shard;
  const auto lane = TcpLane::Create(shard.address());
  EXPECT_FALSE((*lane)->Ready()) << "nobody knows yet";
  EXPECT_TRUE(AwaitReady(**lane));
  EXPECT_TRUE(shard.Read(**lane).ok());
  shard.Stop();
  EXPECT_TRUE(IsLaneDown(shard.Read(**lane)));
  EXPECT_FALSE((*lane)->Ready()) << "it failed a moment ago";
}

TEST(TcpLaneTest, IsReadyAgainWhenItsPortIsBack) {
  const uint16_t port = tcp::Listen("127.0.0.1", 0)->port;
  MemoryLaneHost host(kAttachment);
  const auto lane = TcpLane::Create(
      {.host = "127.0.0.1", .port = port, .attachment = kAttachment, .key = std::nullopt});
  EXPECT_FALSE((*lane)->Ready());
  absl::SleepFor(absl::Milliseconds(50));  // it is dialled in the background, and refused
  // Every call fails and says so, however many did before.
  for (size_t i = 0; i < limits::kTcpConnectionsPerLaneMax + 2; ++i) {
    CheckingSink sink({.blocks = 1, .block_bytes = kBytes});
    EXPECT_TRUE(IsLaneDown((*lane)->Read({LeaseId(1), 0, 1, kBytes}, sink, Soon()))) << i;
    PatternSource source(1, Iota(1), kBytes);
    EXPECT_TRUE(IsLaneDown((*lane)->Write({ReservationId(1), Iota(1), kBytes}, source, Soon())));
  }
  const auto server = TcpServer::Create({.host = &host, .port = port});
  ASSERT_TRUE(server.ok() && (*server)->Welcome(kAttachment).ok()) << server.status();
  EXPECT_TRUE(AwaitReady(**lane));
}

TEST(TcpLaneTest, ACallThatRunsOutOfItsCallersTimeSaysNothingOfThePort) {
  FakeShard shard([](tcp::DataSocket& s) {
    // A block that never ends, and never stands still.
    absl::Status sent = s.BeginBlock(0, kBytes, kSoon);
    for (const uint8_t& byte : Block()) {
      if (sent.ok()) sent = s.SendBlockPart({&byte, 1}, kSoon);
      absl::SleepFor(absl::Milliseconds(5));
      if (!sent.ok()) return;
    }
  });
  const auto lane = TcpLane::Create(shard.address());
  CheckingSink sink({.blocks = 1, .block_bytes = kBytes});
  const absl::Status status =
      (*lane)->Read({LeaseId(1), 0, 1, kBytes}, sink, absl::Now() + absl::Milliseconds(500));
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_FALSE((*lane)->Ready()) << "that it was reached is not known";
}

TEST(TcpLaneTest, AConnectionThatTheShardClosedIsNotLentAgain) {
  MemoryLaneHost host(kAttachment);
  const auto server = *TcpServer::Create({.host = &host, .connections_max = 1});
  ASSERT_TRUE(server->Welcome(kAttachment).ok());
  const auto lane = TcpLane::Create({.host = "127.0.0.1",
                                     .port = server->port(),
                                     .attachment = kAttachment,
                                     .key = std::nullopt});
  const LeaseId lease = host.Lease({.blocks = 1, .block_bytes = kBytes});
  for (int round = 0; round < 3; ++round) {
    CheckingSink sink({.blocks = 1, .block_bytes = kBytes});
    const absl::Status status = (*lane)->Read({lease, 0, 1, kBytes}, sink, Soon());
    EXPECT_TRUE(status.ok()) << round << ": " << status;
    while (server->use().idle < 1) std::this_thread::yield();
    // Somebody else comes, for whom the lane's connection is closed, and goes.
    tcp::DataSocket other(*tcp::Dial("127.0.0.1", server->port(), kSoon));
    EXPECT_TRUE(other.Send(tcp::Hello{kAttachment}, kSoon).ok());
    EXPECT_TRUE(other.ReceiveOnly<tcp::Outcome>(kSoon).ok());
    other.Shutdown();
    while (server->use().connections > 0) std::this_thread::yield();
  }
}

TEST(TcpLaneTest, HasNoMoreConnectionsThanItMayAndCallsWaitForOne) {
  MemoryLaneHost host(kAttachment);
  const auto server = *TcpServer::Create({.host = &host});
  ASSERT_TRUE(server->Welcome(kAttachment).ok());
  const auto lane = TcpLane::Create({.host = "127.0.0.1",
                                     .port = server->port(),
                                     .attachment = kAttachment,
                                     .key = std::nullopt});
  const LeaseId lease = host.Lease({.blocks = 1, .block_bytes = kBytes});
  host.Stall();
  std::vector<std::thread> callers;
  for (size_t i = 0; i < 2 * limits::kTcpConnectionsPerLaneMax; ++i) {
    callers.emplace_back([&] {
      CheckingSink sink({.blocks = 1, .block_bytes = kBytes});
      const absl::Status status = (*lane)->Read({lease, 0, 1, kBytes}, sink, Soon());
      EXPECT_TRUE(status.ok()) << status;
    });
  }
  while (server->use().connections < limits::kTcpConnectionsPerLaneMax) std::this_thread::yield();
  absl::SleepFor(absl::Milliseconds(50));
  EXPECT_EQ(server->use().connections, limits::kTcpConnectionsPerLaneMax);
  host.Unstall();
  for (std::thread& caller : callers) caller.join();
}

TEST(TcpLaneTest, AnAttachmentThatIsRefusedIsALaneThatIsDown) {
  std::atomic<bool> over = false;
  FakeShard shard(
      [&](tcp::DataSocket& s) {
        EXPECT_TRUE(s.ReceiveOnly<tcp::Hello>(kSoon).ok());
        EXPECT_TRUE(s.Send(tcp::Outcome{absl::NotFoundError("who?")}, kSoon).ok());
        // And stays, as if it were to serve calls.
        while (!over) absl::SleepFor(absl::Milliseconds(1));
      },
      /*welcomes=*/false);
  const auto lane = TcpLane::Create(shard.address());
  CheckingSink sink({.blocks = 1, .block_bytes = kBytes});
  const absl::Status status =
      (*lane)->Read({LeaseId(1), 0, 1, kBytes}, sink, absl::Now() + absl::Seconds(5));
  EXPECT_TRUE(IsLaneDown(status)) << status;
  EXPECT_NE(status.message().find("who?"), std::string::npos) << status;
  over = true;
}

TEST(TcpLaneTest, APortThatNobodyListensOnIsNeverReadyAndCallsSayWhy) {
  const uint16_t free_port = tcp::Listen("127.0.0.1", 0)->port;
  for (const char* host : {"127.0.0.1", "no address"}) {
    const auto lane = TcpLane::Create(
        {.host = host, .port = free_port, .attachment = kAttachment, .key = std::nullopt});
    EXPECT_FALSE((*lane)->Ready());
    CheckingSink sink({.blocks = 1, .block_bytes = kBytes});
    const absl::Status status = (*lane)->Read({LeaseId(1), 0, 1, kBytes}, sink, Soon());
    EXPECT_TRUE(IsLaneDown(status)) << status;
    EXPECT_FALSE((*lane)->Ready());
  }
}

TEST(TcpLaneTest, APortThatDoesNotAnswerIsALaneThatIsDown) {
  FakeShard shard(
      [](tcp::DataSocket& s) {
        EXPECT_TRUE(s.ReceiveOnly<tcp::Hello>(kSoon).ok());
        s.ReceiveHeader(kSoon).IgnoreError();
      },
      /*welcomes=*/false);
  const auto lane = TcpLane::Create(shard.address());
  CheckingSink sink({.blocks = 1, .block_bytes = kBytes});
  const absl::Status status = (*lane)->Read({LeaseId(1), 0, 1, kBytes}, sink, Soon());
  EXPECT_TRUE(IsLaneDown(status)) << status;
}

// Half of its time, and then another lane has the other half.
TEST(TcpLaneTest, ACallInWhichNothingMovesEndsBeforeItsDeadline) {
  FakeShard shard([](tcp::DataSocket& s) { s.ReceiveHeader(kSoon).IgnoreError(); });
  const auto lane = TcpLane::Create(shard.address());
  CheckingSink sink({.blocks = 1, .block_bytes = kBytes});
  const absl::Time deadline = absl::Now() + absl::Seconds(2);
  const absl::Status status = (*lane)->Read({LeaseId(1), 0, 1, kBytes}, sink, deadline);
  EXPECT_TRUE(IsLaneDown(status)) << status;
  EXPECT_LT(absl::Now(), deadline);
}

std::atomic<int> signals_seen{0};
void CountSignal(int) {
  ++signals_seen;
}

// Profilers, timers, a Python main thread's handlers.
TEST(TcpLaneTest, SignalsEndNoCall) {
  struct sigaction counts {};
  struct sigaction before {};
  counts.sa_handler = CountSignal;
  ASSERT_EQ(::sigaction(SIGALRM, &counts, &before), 0);
  RealShard shard;
  const auto lane = TcpLane::Create(shard.address());
  const itimerval storm{{0, 200}, {0, 200}};
  ASSERT_EQ(::setitimer(ITIMER_REAL, &storm, nullptr), 0);
  signals_seen = 0;
  for (int round = 0; round < 400 && (round < 20 || signals_seen < 50); ++round) {
    const ReservationId reservation = shard.host().Reserve(40, kBytes);
    PatternSource source(1, Iota(40), kBytes);
    const absl::Status status = (*lane)->Write({reservation, Iota(40), kBytes}, source, Soon());
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_EQ(shard.host().BytesWritten(reservation, 39), kBytes);
  }
  const itimerval over{};
  ::setitimer(ITIMER_REAL, &over, nullptr);
  ::sigaction(SIGALRM, &before, nullptr);
  EXPECT_GT(signals_seen, 0);
}

}  // namespace
}  // namespace reprise::lanes
