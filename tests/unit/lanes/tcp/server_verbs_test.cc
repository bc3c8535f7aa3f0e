// Verbs on a shard's tcp port, asked by hand: who answers them, for whom, and what ends a
// connection.
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "cluster/lanes/tcp/call_server.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "tests/unit/lanes/tcp/echo_verb_host.h"
#include "tests/unit/lanes/tcp/tcp_server_fixture.h"

namespace reprise::lanes {
namespace {

using tcp::Verb;

class ServerVerbsTest : public TcpServerTest {
 protected:
  ServerVerbsTest() {
    Serve();
    server_->AnswerVerbs(&verbs_);
  }
  ~ServerVerbsTest() override {
    verbs_.Stall(false);
    server_.reset();
  }

  static absl::StatusOr<std::string> Answer(tcp::DataSocket& socket, Verb verb) {
    const absl::StatusOr<tcp::Header> header = socket.ReceiveHeader(kSoon);
    if (!header.ok()) return header.status();
    if (header->is_answer()) {
      EXPECT_EQ(header->verb(), verb);
      return socket.ReceiveBody(*header, kSoon);
    }
    const absl::StatusOr<tcp::Message> message = socket.ReceiveMessage(*header, kSoon);
    if (!message.ok()) return message.status();
    const absl::Status refused = std::get<tcp::Outcome>(*message).status;
    EXPECT_FALSE(refused.ok());
    return refused;
  }
  static absl::StatusOr<std::string> Ask(tcp::DataSocket& socket, Verb verb,
                                         absl::string_view request) {
    const absl::Status sent = socket.SendVerb(verb, request, kSoon);
    if (!sent.ok()) return sent;
    return Answer(socket, verb);
  }
  static bool Closed(tcp::DataSocket& socket) {
    return IsLaneDown(socket.ReceiveHeader(kSoon).status());
  }

  EchoVerbHost verbs_;
};

TEST_F(ServerVerbsTest, EveryVerbReachesTheHostAsItsConnectionsAttachment) {
  constexpr AttachmentId kOther(32);
  ASSERT_TRUE(server_->Welcome(kOther).ok());
  tcp::DataSocket mine = Dial();
  tcp::DataSocket theirs = Knock();
  ASSERT_TRUE(theirs.Send(tcp::Hello{kOther}, kSoon).ok());
  ASSERT_TRUE(theirs.ReceiveOnly<tcp::Outcome>(kSoon)->status.ok());
  const std::vector<Verb> all = {Verb::kLookup,  Verb::kAcquire, Verb::kRelease,
                                 Verb::kReserve, Verb::kCommit,  static_cast<Verb>(99)};
  for (const Verb verb : all) {
    EXPECT_EQ(*Ask(mine, verb, "mine"), verbs_.EchoOf("mine"));
    EXPECT_EQ(*Ask(theirs, verb, "theirs"), verbs_.EchoOf("theirs"));
  }
  const std::vector<EchoVerbHost::Asked> asked = verbs_.asked();
  ASSERT_EQ(asked.size(), 2 * all.size());
  for (size_t i = 0; i < asked.size(); ++i) {
    EXPECT_EQ(asked[i].verb, all[i / 2]);
    EXPECT_EQ(asked[i].attachment, i % 2 == 0 ? kAttachment : kOther);
    EXPECT_EQ(asked[i].request, i % 2 == 0 ? "mine" : "theirs");
  }
  EXPECT_EQ(server_->use().verbs, asked.size());
}

TEST_F(ServerVerbsTest, WithoutAHostVerbsAreRefusedAndCountedAndTheConnectionGoesOn) {
  tcp::DataSocket socket = Dial();
  for (const bool answers : {true, false, true}) {
    server_->AnswerVerbs(answers ? &verbs_ : nullptr);
    const absl::StatusOr<std::string> answer = Ask(socket, Verb::kLookup, "is it there?");
    EXPECT_EQ(answer.ok(), answers) << answer.status();
    if (answers) continue;
    EXPECT_EQ(answer.status().code(), absl::StatusCode::kUnimplemented);
    EXPECT_EQ(RefusalReason(answer.status()), "TCP_NO_VERBS");
  }
  EXPECT_EQ(verbs_.asked().size(), 2u);
  EXPECT_EQ(server_->use().verbs, 3u);
  EXPECT_EQ(server_->use().connections, 1u);
}

TEST_F(ServerVerbsTest, BlocksAreReadBetweenVerbsAndAfterOneThatWasRefused) {
  tcp::DataSocket socket = Dial();
  const LeaseId lease = host_.Lease({.blocks = 1, .block_bytes = 4096});
  std::vector<uint8_t> block(4096);
  for (const bool refused : {false, true, false}) {
    verbs_.Refuse(refused ? Refusal(absl::StatusCode::kResourceExhausted, "OVERLOAD", "later")
                          : absl::OkStatus());
    const absl::StatusOr<std::string> answer = Ask(socket, Verb::kAcquire, "all of it");
    EXPECT_EQ(RefusalReason(answer.status()), refused ? "OVERLOAD" : "");
    ASSERT_TRUE(socket.Send(tcp::Read{lease, 0, 1, 4096}, kSoon).ok());
    const absl::StatusOr<tcp::Header> header = socket.ReceiveHeader(kSoon);
    ASSERT_TRUE(header.ok() && header->is_block()) << header.status();
    ASSERT_TRUE(socket.ReceiveBytes(block, kSoon).ok());
    EXPECT_EQ(block, reprise::testing::PatternBlock(1, 0, 4096));
  }
  EXPECT_EQ(server_->use().connections, 1u);
}

TEST_F(ServerVerbsTest, ARequestIsTakenUpToItsLimitAndEndsTheConnectionBeyondIt) {
  tcp::DataSocket socket = Dial();
  const std::string most(limits::kTcpVerbBytesMax - verbs_.EchoOf("").size(), 'k');
  for (const std::string& request : {std::string(), most}) {
    EXPECT_EQ(*Ask(socket, Verb::kLookup, request), verbs_.EchoOf(request));
  }
  const std::string more(limits::kTcpVerbBytesMax + 1, 'k');
  // It may be closed while that is on its way.
  socket.SendVerb(Verb::kLookup, more, kSoon).IgnoreError();
  EXPECT_TRUE(Closed(socket));
  EXPECT_EQ(verbs_.asked().size(), 2u);
}

TEST_F(ServerVerbsTest, NothingIsAskedBeforeTheHelloOrByWhoIsRefused) {
  tcp::DataSocket nobody = Knock();
  ASSERT_TRUE(nobody.SendVerb(Verb::kLookup, "open up", kSoon).ok());
  EXPECT_TRUE(Closed(nobody));
  tcp::DataSocket stranger = Knock();
  ASSERT_TRUE(stranger.Send(tcp::Hello{AttachmentId(666)}, kSoon).ok());
  stranger.SendVerb(Verb::kLookup, "open up", kSoon).IgnoreError();
  const absl::StatusOr<tcp::Outcome> refused = stranger.ReceiveOnly<tcp::Outcome>(kSoon);
  if (refused.ok()) EXPECT_EQ(RefusalReason(refused->status), "ATTACHMENT_UNKNOWN");
  EXPECT_TRUE(Closed(stranger));
  EXPECT_TRUE(verbs_.asked().empty());
  EXPECT_EQ(server_->use().verbs, 0u);
}

TEST_F(ServerVerbsTest, AVerbOrAnAnswerOutOfTurnEndsTheConnection) {
  tcp::DataSocket writer = Dial();
  ASSERT_TRUE(writer.Send(tcp::Write{host_.Reserve(1, 64), 64}, kSoon).ok());
  ASSERT_TRUE(writer.SendVerb(Verb::kCommit, "in the middle", kSoon).ok());
  EXPECT_TRUE(Closed(writer));
  tcp::DataSocket answering = Dial();
  ASSERT_TRUE(answering.SendAnswer(Verb::kLookup, "I am the shard", kSoon).ok());
  EXPECT_TRUE(Closed(answering));
  EXPECT_TRUE(verbs_.asked().empty());
  EXPECT_TRUE(AwaitConnections(0));
}

TEST_F(ServerVerbsTest, AHostIsLetGoOfWhenItHasAnsweredItsLast) {
  tcp::DataSocket socket = Dial();
  verbs_.Stall(true);
  ASSERT_TRUE(socket.SendVerb(Verb::kCommit, "the last one", kSoon).ok());
  ASSERT_TRUE(verbs_.AwaitUnderWay(1));
  std::atomic<bool> begun{false}, over{false};
  std::atomic<size_t> left{99};
  std::thread stops([&] {
    begun = true;
    server_->AnswerVerbs(nullptr);
    left = verbs_.under_way();
    over = true;
  });
  while (!begun) std::this_thread::yield();
  for (int i = 0; i < 1000; ++i) std::this_thread::yield();
  EXPECT_FALSE(over);
  verbs_.Stall(false);
  stops.join();
  EXPECT_EQ(left, 0u);
  EXPECT_TRUE(Answer(socket, Verb::kCommit).ok()) << "and its caller has heard";
  EXPECT_EQ(RefusalReason(Ask(socket, Verb::kCommit, "one more").status()), "TCP_NO_VERBS");
}

TEST_F(ServerVerbsTest, AnAttachmentThatEndsHearsNoAnswer) {
  tcp::DataSocket socket = Dial();
  verbs_.Stall(true);
  ASSERT_TRUE(socket.SendVerb(Verb::kReserve, "room", kSoon).ok());
  ASSERT_TRUE(verbs_.AwaitUnderWay(1));
  server_->EndAttachment(kAttachment);
  EXPECT_TRUE(Closed(socket));
  verbs_.Stall(false);
  EXPECT_TRUE(AwaitConnections(0));
}

TEST_F(ServerVerbsTest, AConnectionThatIsAskedOnIsNotTakenForAnother) {
  server_.reset();
  Serve({.host = &host_, .connections_max = 1});
  server_->AnswerVerbs(&verbs_);
  tcp::DataSocket socket = Dial();
  verbs_.Stall(true);
  ASSERT_TRUE(socket.SendVerb(Verb::kLookup, "slowly", kSoon).ok());
  ASSERT_TRUE(verbs_.AwaitUnderWay(1));
  tcp::DataSocket other = Knock();
  EXPECT_TRUE(Closed(other));
  verbs_.Stall(false);
  EXPECT_EQ(*Answer(socket, Verb::kLookup), verbs_.EchoOf("slowly"));
}

}  // namespace
}  // namespace reprise::lanes
