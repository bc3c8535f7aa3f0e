// Who is served, and how many at once.
#include "cluster/lanes/tcp/tcp_server.h"

#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "tests/unit/lanes/tcp/tcp_server_fixture.h"

namespace reprise::lanes {
namespace {

TEST_F(TcpServerTest, OnlyAWelcomedAttachmentIsServed) {
  Serve();
  EXPECT_FALSE(key_.has_value());
  EXPECT_TRUE(Serves(kAttachment, std::nullopt));
  EXPECT_FALSE(Serves(AttachmentId(666), std::nullopt));
  server_->EndAttachment(kAttachment);
  EXPECT_FALSE(Serves(kAttachment, std::nullopt));
}

TEST_F(TcpServerTest, EncryptedOnlyWhoHasTheKeyOfThisAttachmentIsServed) {
  Serve({.host = &host_, .encrypted = true});
  const std::optional<TcpKey> others = *server_->Welcome(AttachmentId(32));
  EXPECT_TRUE(Serves(kAttachment, key_));
  EXPECT_FALSE(Serves(kAttachment, others)) << "another attachment's key";
  EXPECT_FALSE(Serves(kAttachment, TcpKey{})) << "nobody's key";
  EXPECT_FALSE(Serves(kAttachment, std::nullopt)) << "plaintext";
}

TEST_F(TcpServerTest, APlaintextPortDoesNotAnswerTls) {
  Serve();
  EXPECT_FALSE(Serves(kAttachment, TcpKey{}));
}

TEST_F(TcpServerTest, AnAttachmentThatEndsTakesItsConnectionsAndPinsWithIt) {
  Serve();
  const LeaseId lease = host_.Lease({.blocks = 64, .block_bytes = 4 << 20});
  tcp::DataSocket reader = Dial();
  // More than a socket holds, and nobody reads.
  ASSERT_TRUE(reader.Send(tcp::Read{lease, 0, 64, 4 << 20}, kSoon).ok());
  ASSERT_TRUE(reader.ReceiveHeader(kSoon).ok());
  EXPECT_GT(host_.PinsHeld(), 0u);
  server_->EndAttachment(kAttachment);
  EXPECT_TRUE(host_.AwaitNoPins(absl::Seconds(30)));
  EXPECT_TRUE(AwaitConnections(0));
}

TEST_F(TcpServerTest, AReaderThatGoesAwayLetsGoOfItsPins) {
  Serve();
  const LeaseId lease = host_.Lease({.blocks = 64, .block_bytes = 4 << 20});
  {
    tcp::DataSocket reader = Dial();
    ASSERT_TRUE(reader.Send(tcp::Read{lease, 0, 64, 4 << 20}, kSoon).ok());
    ASSERT_TRUE(reader.ReceiveHeader(kSoon).ok());
  }
  EXPECT_TRUE(host_.AwaitNoPins(absl::Seconds(30)));
}

TEST_F(TcpServerTest, NonsenseClosesTheConnection) {
  Serve();
  const auto closed = [](tcp::DataSocket& socket) {
    const auto header = socket.ReceiveHeader(kSoon);
    return IsLaneDown(header.status());
  };
  tcp::DataSocket before_hello = Knock();
  ASSERT_TRUE(before_hello.Send(tcp::WriteEnd{}, kSoon).ok());
  EXPECT_TRUE(closed(before_hello));
  const std::vector<uint8_t> garbage(64, 0xA5);
  tcp::DataSocket raw = Knock();
  ASSERT_TRUE(raw.SendBlockPart(garbage, kSoon).ok());
  EXPECT_TRUE(closed(raw));
  tcp::DataSocket late = Dial();
  ASSERT_TRUE(late.SendBlockPart(garbage, kSoon).ok());
  EXPECT_TRUE(closed(late));
  tcp::DataSocket block_first = Dial();
  ASSERT_TRUE(block_first.SendBlock(0, garbage, kSoon).ok());
  EXPECT_TRUE(closed(block_first));
  tcp::DataSocket twice = Dial();
  ASSERT_TRUE(twice.Send(tcp::Hello{kAttachment}, kSoon).ok());
  EXPECT_TRUE(closed(twice));
  tcp::DataSocket not_ended = Dial();
  ASSERT_TRUE(not_ended.Send(tcp::Write{host_.Reserve(1, 64), 64}, kSoon).ok());
  ASSERT_TRUE(not_ended.Send(tcp::Read{LeaseId(1), 0, 1, 64}, kSoon).ok());
  EXPECT_TRUE(closed(not_ended));
  EXPECT_TRUE(AwaitConnections(0));
}

TEST_F(TcpServerTest, WhoSaysNothingIsClosed) {
  Serve();
  tcp::DataSocket silent = Knock();
  EXPECT_TRUE(IsLaneDown(silent.ReceiveHeader(kSoon).status()));
}

TEST_F(TcpServerTest, OneConnectionMoreClosesOneThatSaysNothing) {
  Serve({.host = &host_, .connections_max = 3});
  tcp::DataSocket first = Dial(), second = Dial();
  tcp::DataSocket silent = Knock();
  ASSERT_TRUE(AwaitConnections(3));
  EXPECT_EQ(server_->use().idle, 2u);
  tcp::DataSocket third = Dial();
  EXPECT_TRUE(IsLaneDown(silent.ReceiveHeader(kSoon).status()));
  for (tcp::DataSocket* const one : {&second, &first, &third}) {
    EXPECT_TRUE(Answers(*one));
    while (server_->use().idle < 3) std::this_thread::yield();
  }
  // All are between calls, and the second one for longest, which came after the first.
  tcp::DataSocket fourth = Dial();
  EXPECT_FALSE(Answers(second));
  EXPECT_TRUE(Answers(first) && Answers(third) && Answers(fourth));
}

TEST_F(TcpServerTest, AnAttachmentHasNoMoreConnectionsThanItNeeds) {
  Serve();
  std::vector<tcp::DataSocket> all;
  for (size_t i = 0; i < limits::kTcpConnectionsPerAttachmentMax; ++i) all.push_back(Dial());
  tcp::DataSocket more = Knock();
  ASSERT_TRUE(more.Send(tcp::Hello{kAttachment}, kSoon).ok());
  EXPECT_EQ(more.ReceiveOnly<tcp::Outcome>(kSoon)->status.code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(IsLaneDown(more.ReceiveHeader(kSoon).status()));
  for (tcp::DataSocket& one : all) EXPECT_TRUE(Answers(one));
  all.pop_back();
  ASSERT_TRUE(AwaitConnections(limits::kTcpConnectionsPerAttachmentMax - 1));
  tcp::DataSocket again = Dial();
  EXPECT_TRUE(Answers(again));
}

TEST_F(TcpServerTest, ConnectionsInTheMiddleOfACallStay) {
  Serve({.host = &host_, .connections_max = 1});
  const LeaseId lease = host_.Lease({.blocks = 64, .block_bytes = 4 << 20});
  tcp::DataSocket reader = Dial();
  ASSERT_TRUE(reader.Send(tcp::Read{lease, 0, 64, 4 << 20}, kSoon).ok());
  ASSERT_TRUE(reader.ReceiveHeader(kSoon).ok());
  tcp::DataSocket other = Knock();
  EXPECT_TRUE(IsLaneDown(other.ReceiveHeader(kSoon).status()));
  std::vector<uint8_t> block(4 << 20);
  EXPECT_TRUE(reader.ReceiveBytes(block, kSoon).ok());
}

TEST_F(TcpServerTest, AHelloThatTricklesInIsLateAllTheSame) {
  Serve({.host = &host_, .encrypted = true});
  tcp::DataSocket silent = Knock();  // not even TLS begins
  EXPECT_TRUE(IsLaneDown(silent.ReceiveHeader(kSoon).status()));
  Serve();
  const std::string hello = tcp::Encode(tcp::Hello{kAttachment});
  tcp::DataSocket slow = Knock();
  absl::Status sent;
  for (size_t i = 0; i < hello.size() && sent.ok(); ++i) {
    const uint8_t byte = static_cast<uint8_t>(hello[i]);
    sent = slow.SendBlockPart({&byte, 1}, kSoon);
    absl::SleepFor(2 * limits::kTcpHelloTimeout / hello.size());
  }
  EXPECT_FALSE(sent.ok() && slow.ReceiveOnly<tcp::Outcome>(kSoon).ok());
}

TEST_F(TcpServerTest, ConnectionsThatAreOverLeaveNothing) {
  Serve();
  const auto threads = [] {
    std::ifstream status("/proc/self/status");
    std::string line;
    while (std::getline(status, line)) {
      if (line.rfind("Threads:", 0) == 0) return std::stoi(line.substr(8));
    }
    return -1;
  };
  const int before = threads();
  for (int i = 0; i < 100; ++i) {
    tcp::DataSocket socket = Dial();
    socket.Shutdown();
  }
  EXPECT_TRUE(AwaitConnections(0));
  // Collected when the next one comes, or after a while.
  const absl::Time end = Soon();
  while (threads() > before && absl::Now() < end) absl::SleepFor(absl::Milliseconds(5));
  EXPECT_LE(threads(), before);
}

TEST_F(TcpServerTest, ListensWhereItIsTold) {
  EXPECT_FALSE(TcpServer::Create({.host = &host_, .listen_host = "nowhere.invalid"}).ok());
  for (const char* host : {"localhost", "0.0.0.0", "::"}) {
    server_.reset();
    Serve({.host = &host_, .listen_host = host});
    EXPECT_TRUE(Serves(kAttachment, std::nullopt)) << host;
  }
  const uint16_t taken = server_->port();
  const absl::Status status = TcpServer::Create({.host = &host_, .port = taken}).status();
  EXPECT_EQ(RefusalReason(status), "TCP_LISTEN") << status;
  EXPECT_NE(status.message().find(std::to_string(taken)), std::string::npos) << status;
  // And a restart finds the port that it had.
  server_.reset();
  EXPECT_TRUE(TcpServer::Create({.host = &host_, .port = taken}).ok());
}

}  // namespace
}  // namespace reprise::lanes
