// The caller's end of verbs on the tcp lane: what is answered there, and when to ask over gRPC.
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "tests/support/tcp_lane_ends.h"
#include "tests/unit/lanes/tcp/echo_verb_host.h"
#include "tests/unit/lanes/tcp/tcp_server_fixture.h"

namespace reprise::lanes {
namespace {

using reprise::testing::AwaitReady;
using tcp::Verb;

class LaneVerbsTest : public TcpServerTest, public ::testing::WithParamInterface<bool> {
 protected:
  LaneVerbsTest() {
    Serve({.host = &host_, .encrypted = GetParam()});
    server_->AnswerVerbs(&verbs_);
    lane_ = Connect();
  }
  ~LaneVerbsTest() override {
    verbs_.Stall(false);
    server_.reset();
  }

  EchoVerbHost verbs_;
  std::unique_ptr<TcpLane> lane_;
};
INSTANTIATE_TEST_SUITE_P(Ports, LaneVerbsTest, ::testing::Bool(), [](const auto& encrypted) {
  return encrypted.param ? "encrypted" : "plaintext";
});

TEST_P(LaneVerbsTest, UntilThePortWasReachedGrpcIsAskedAndThenThePort) {
  EXPECT_FALSE(lane_->Ask(Verb::kLookup, "too early", Soon()).has_value());
  ASSERT_TRUE(AwaitReady(*lane_));
  for (int i = 0; i < 3; ++i) {
    const auto answer = lane_->Ask(Verb::kLookup, "hello", Soon());
    ASSERT_TRUE(answer.has_value() && answer->ok());
    EXPECT_EQ(**answer, verbs_.EchoOf("hello"));
  }
  EXPECT_EQ(verbs_.asked().size(), 3u);
  EXPECT_EQ(server_->use().connections, 1u);
}

TEST_P(LaneVerbsTest, ARefusalIsAnAnswerAndBlocksComeOnTheSameConnection) {
  ASSERT_TRUE(AwaitReady(*lane_));
  verbs_.Refuse(Refusal(absl::StatusCode::kResourceExhausted, "OVERLOAD", "too much at once"));
  const auto answer = lane_->Ask(Verb::kReserve, "room", Soon());
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(RefusalReason(answer->status()), "OVERLOAD");
  EXPECT_EQ(answer->status().message(), "too much at once");
  EXPECT_TRUE(Read(*lane_, host_.Lease({.blocks = 3, .block_bytes = 512}), 3, 512).ok());
  EXPECT_TRUE(lane_->Ready());
  EXPECT_EQ(server_->use().connections, 1u);
}

TEST_P(LaneVerbsTest, WhatMustNotBeAskedTwiceIsWaitedForUntilTheDeadline) {
  ASSERT_TRUE(AwaitReady(*lane_));
  verbs_.Stall(true);
  for (const Verb verb : {Verb::kReserve, Verb::kCommit}) {
    const auto answer = lane_->Ask(verb, "slow", absl::Now() + absl::Milliseconds(500));
    ASSERT_TRUE(answer.has_value()) << "it would be asked again over gRPC";
    EXPECT_TRUE(absl::IsDeadlineExceeded(answer->status())) << answer->status();
  }
}

TEST_P(LaneVerbsTest, WhatThePortDoesNotAnswerIsForGrpcAndTheLaneGoesOn) {
  ASSERT_TRUE(AwaitReady(*lane_));
  server_->AnswerVerbs(nullptr);
  EXPECT_FALSE(lane_->Ask(Verb::kLookup, "anybody?", Soon()).has_value());
  server_->AnswerVerbs(&verbs_);
  verbs_.Refuse(Refusal(absl::StatusCode::kUnimplemented, "TCP_VERB_UNKNOWN", "no such verb"));
  EXPECT_FALSE(lane_->Ask(static_cast<Verb>(99), "news", Soon()).has_value());
  verbs_.Refuse(absl::OkStatus());
  EXPECT_TRUE(lane_->Ask(Verb::kLookup, "again", Soon()).has_value());
  EXPECT_EQ(server_->use().connections, 1u);
}

TEST_P(LaneVerbsTest, ALargeRequestIsForGrpc) {
  ASSERT_TRUE(AwaitReady(*lane_));
  const std::string more(limits::kTcpVerbBytesMax + 1, 'k');
  EXPECT_FALSE(lane_->Ask(Verb::kLookup, more, Soon()).has_value());
  EXPECT_EQ(server_->use().verbs, 0u);
  const std::string most(limits::kTcpVerbBytesMax - verbs_.EchoOf("").size(), 'k');
  const auto answer = lane_->Ask(Verb::kLookup, most, Soon());
  ASSERT_TRUE(answer.has_value() && answer->ok());
  EXPECT_EQ(**answer, verbs_.EchoOf(most));
}

TEST_P(LaneVerbsTest, WhileAllConnectionsAreBusyGrpcIsAskedAndNobodyWaits) {
  ASSERT_TRUE(AwaitReady(*lane_));
  verbs_.Stall(true);
  std::vector<std::thread> callers;
  for (size_t i = 0; i < limits::kTcpConnectionsPerLaneMax; ++i) {
    callers.emplace_back([this, i] {
      const std::string request = absl::StrCat("of caller ", i);
      const auto answer = lane_->Ask(Verb::kAcquire, request, Soon());
      ASSERT_TRUE(answer.has_value() && answer->ok());
      EXPECT_EQ(**answer, verbs_.EchoOf(request));
    });
  }
  EXPECT_TRUE(verbs_.AwaitUnderWay(limits::kTcpConnectionsPerLaneMax));
  EXPECT_FALSE(lane_->Ask(Verb::kAcquire, "one too many", Soon()).has_value());
  verbs_.Stall(false);
  for (std::thread& caller : callers) caller.join();
  EXPECT_TRUE(lane_->Ask(Verb::kAcquire, "now", Soon()).has_value());
}

TEST_P(LaneVerbsTest, ACallWhoseTimeIsOverIsNotMade) {
  ASSERT_TRUE(AwaitReady(*lane_));
  const auto answer = lane_->Ask(Verb::kLookup, "late", absl::Now() - absl::Seconds(1));
  ASSERT_TRUE(answer.has_value());
  EXPECT_TRUE(absl::IsDeadlineExceeded(answer->status())) << answer->status();
  EXPECT_EQ(server_->use().verbs, 0u);
  EXPECT_TRUE(lane_->Ready()) << "which says nothing of the port";
}

TEST_P(LaneVerbsTest, APortThatClosesInTheMiddleIsLeftAloneForAWhile) {
  ASSERT_TRUE(AwaitReady(*lane_));
  verbs_.Stall(true);
  std::thread caller(
      [this] { EXPECT_FALSE(lane_->Ask(Verb::kCommit, "and then?", Soon()).has_value()); });
  EXPECT_TRUE(verbs_.AwaitUnderWay(1));
  server_->EndAttachment(kAttachment);
  caller.join();
  EXPECT_FALSE(lane_->Ready());
  EXPECT_FALSE(lane_->Ask(Verb::kCommit, "again", Soon()).has_value());
  verbs_.Stall(false);
}

// A port that takes one connection, hears one verb and answers as the test says. After that it
// waits until the caller closes it.
class FakePort {
 public:
  explicit FakePort(std::function<void(tcp::DataSocket&)> answer)
      : thread_([this, answer = std::move(answer)] { Serve(answer); }) {}
  ~FakePort() { thread_.join(); }

  std::unique_ptr<TcpLane> Connect() const {
    return *TcpLane::Create({.host = "127.0.0.1",
                             .port = listeners_.port,
                             .attachment = kAttachment,
                             .key = std::nullopt});
  }
  // Whether the caller has closed the connection, and asked nothing more on it.
  bool AwaitClosed() { return closed_.WaitForNotificationWithTimeout(absl::Seconds(30)); }

 private:
  void Serve(const std::function<void(tcp::DataSocket&)>& answer) {
    const Descriptor& listener = listeners_.sockets.front();
    ASSERT_TRUE(listener.Wait(POLLIN, kSoon, "test").ok());
    tcp::DataSocket socket(
        Descriptor(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)));
    ASSERT_EQ(socket.ReceiveOnly<tcp::Hello>(kSoon)->attachment, kAttachment);
    ASSERT_TRUE(socket.Send(tcp::Outcome{absl::OkStatus()}, kSoon).ok());
    const absl::StatusOr<tcp::Header> header = socket.ReceiveHeader(kSoon);
    ASSERT_TRUE(header.ok() && header->is_verb());
    ASSERT_TRUE(socket.ReceiveBody(*header, kSoon).ok());
    answer(socket);
    if (IsLaneDown(socket.ReceiveHeader(kSoon).status())) closed_.Notify();
  }

  const tcp::Listeners listeners_ = *tcp::Listen("127.0.0.1", 0);
  absl::Notification closed_;
  std::thread thread_;
};

struct Nonsense {
  const char* name;
  std::function<void(tcp::DataSocket&)> say;
};

TEST(LaneVerbsNonsenseTest, NonsenseIsNoAnswerAndItsConnectionIsNotUsedAgain) {
  const auto raw = [](tcp::DataSocket& s, std::span<const uint8_t> bytes) {
    s.SendBlockPart(bytes, kSoon).IgnoreError();
  };
  const std::vector<Nonsense> all = {
      {"another verb's answer",
       [](tcp::DataSocket& s) { s.SendAnswer(Verb::kRelease, "done", kSoon).IgnoreError(); }},
      {"a verb",
       [](tcp::DataSocket& s) { s.SendVerb(Verb::kAcquire, "you first", kSoon).IgnoreError(); }},
      {"a block",
       [](tcp::DataSocket& s) {
         const std::vector<uint8_t> block(512);
         s.SendBlock(0, block, kSoon).IgnoreError();
       }},
      {"that it went well, and not how",
       [](tcp::DataSocket& s) { s.Send(tcp::Outcome{absl::OkStatus()}, kSoon).IgnoreError(); }},
      {"a caller's message",
       [](tcp::DataSocket& s) { s.Send(tcp::WriteEnd{}, kSoon).IgnoreError(); }},
      {"a type that does not exist",
       [&](tcp::DataSocket& s) {
         auto header = tcp::EncodeAnswerHeader(Verb::kAcquire, 0);
         header[4] = 0x77;
         raw(s, header);
       }},
      {"an answer that is too large",
       [&](tcp::DataSocket& s) {
         raw(s, tcp::EncodeAnswerHeader(Verb::kAcquire, limits::kTcpVerbBytesMax + 1));
       }},
      {"garbage",
       [&](tcp::DataSocket& s) {
         const std::vector<uint8_t> garbage(64, 0xA5);
         raw(s, garbage);
       }},
      {"half an answer",
       [&](tcp::DataSocket& s) {
         raw(s, tcp::EncodeAnswerHeader(Verb::kAcquire, 100));
         s.Shutdown();
       }},
      {"nothing, and the connection ends", [](tcp::DataSocket& s) { s.Shutdown(); }},
  };
  for (const Nonsense& nonsense : all) {
    SCOPED_TRACE(nonsense.name);
    FakePort port(nonsense.say);
    const auto lane = port.Connect();
    ASSERT_TRUE(AwaitReady(*lane));
    EXPECT_FALSE(lane->Ask(Verb::kAcquire, "all of it", Soon()).has_value());
    EXPECT_FALSE(lane->Ready()) << "it rests";
    EXPECT_FALSE(lane->Ask(Verb::kAcquire, "all of it", Soon()).has_value());
    EXPECT_TRUE(port.AwaitClosed());
  }
}

// What would come next on the connection is the answer that nobody waits for any more.
TEST(LaneVerbsNonsenseTest, ACallThatRunsOutOfItsTimeLeavesNoAnswerForTheNextOne) {
  FakePort port([](tcp::DataSocket& s) {
    // An answer that never ends, and never stands still.
    const std::vector<uint8_t> body(limits::kTcpVerbBytesMax);
    const auto header = tcp::EncodeAnswerHeader(Verb::kAcquire, body.size());
    absl::Status sent = s.SendBlockPart(header, kSoon);
    for (size_t at = 0; at < body.size() && sent.ok(); ++at) {
      sent = s.SendBlockPart(std::span(body).subspan(at, 1), kSoon);
      absl::SleepFor(absl::Milliseconds(5));
    }
  });
  const auto lane = port.Connect();
  ASSERT_TRUE(AwaitReady(*lane));
  const auto answer = lane->Ask(Verb::kAcquire, "now", absl::Now() + absl::Milliseconds(500));
  ASSERT_TRUE(answer.has_value());
  EXPECT_TRUE(absl::IsDeadlineExceeded(answer->status())) << answer->status();
  EXPECT_TRUE(lane->Ready()) << "which says nothing of the port";
  EXPECT_TRUE(port.AwaitClosed());
}

// Half of the time, and then gRPC has the other half.
TEST(LaneVerbsNonsenseTest, APortThatSaysNothingLeavesTimeForGrpc) {
  absl::Notification over;
  FakePort port([&](tcp::DataSocket&) { over.WaitForNotification(); });
  const auto lane = port.Connect();
  ASSERT_TRUE(AwaitReady(*lane));
  EXPECT_FALSE(lane->Ask(Verb::kAcquire, "well?", absl::Now() + absl::Seconds(2)).has_value());
  EXPECT_FALSE(lane->Ready());
  over.Notify();
  EXPECT_TRUE(port.AwaitClosed());
}

}  // namespace
}  // namespace reprise::lanes
