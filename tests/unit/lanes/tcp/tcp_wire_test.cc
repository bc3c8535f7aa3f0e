#include "cluster/lanes/tcp/tcp_wire.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"

namespace reprise::lanes::tcp {
namespace {

std::span<const uint8_t> AsBytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

absl::StatusOr<Message> Decode(const std::string& frame) {
  if (frame.size() < kHeaderBytes) return absl::InvalidArgumentError("short");
  const auto header = DecodeHeader(AsBytes(frame).first<kHeaderBytes>());
  if (!header.ok()) return header.status();
  return DecodeBody(*header, AsBytes(frame).subspan(kHeaderBytes));
}

std::vector<Message> EveryMessage() {
  return {Hello{AttachmentId(0xfeedfacecafebeef)}, Read{LeaseId(7), 3, 65536, 4194304},
          Write{ReservationId(9), 272}, WriteEnd{},
          Outcome{Refusal(absl::StatusCode::kOutOfRange, "BLOCK", "block 4 is not leased")}};
}

TEST(TcpWireTest, EveryMessageComesBackAsItWas) {
  const std::vector<Message> messages = EveryMessage();
  ASSERT_EQ(messages.size(), std::variant_size_v<Message>);
  for (const Message& message : messages) {
    const std::string frame = Encode(message);
    const absl::StatusOr<Message> back = Decode(frame);
    ASSERT_TRUE(back.ok()) << message.index() << ": " << back.status();
    EXPECT_EQ(back->index(), message.index());
    EXPECT_EQ(Encode(*back), frame);
  }
  const auto read = std::get<Read>(*Decode(Encode(messages[1])));
  EXPECT_EQ(read.lease, LeaseId(7));
  EXPECT_EQ(read.first, 3u);
  EXPECT_EQ(read.blocks, 65536u);
  EXPECT_EQ(read.block_bytes, 4194304u);
  const auto write = std::get<Write>(*Decode(Encode(messages[2])));
  EXPECT_EQ(write.reservation, ReservationId(9));
  EXPECT_EQ(write.block_bytes, 272u);
  const absl::Status status = std::get<Outcome>(*Decode(Encode(messages[4]))).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(RefusalReason(status), "BLOCK");
  EXPECT_EQ(status.message(), "block 4 is not leased");
}

TEST(TcpWireTest, AFrameThatIsShorterOrLongerThanItsMessageIsRefused) {
  for (const Message& message : EveryMessage()) {
    const std::string frame = Encode(message);
    for (size_t bytes = 0; bytes < frame.size(); ++bytes) {
      EXPECT_FALSE(Decode(frame.substr(0, bytes)).ok()) << message.index() << " at " << bytes;
    }
    EXPECT_FALSE(Decode(frame + "x").ok()) << message.index();
  }
}

TEST(TcpWireTest, AHeaderOfAnotherVersionTypeOrSizeIsRefused) {
  const std::string frame = Encode(WriteEnd{});
  for (const size_t at : {0u, 1u, 2u, 3u, 4u, 5u, 6u, 7u}) {
    std::string changed = frame;
    changed[at] ^= '\x40';
    EXPECT_FALSE(Decode(changed).ok()) << at;
  }
  std::string large = frame;
  large[kHeaderBytes - 4] = '\x01';
  large[kHeaderBytes - 3] = '\x08';  // 0x801: one byte more than a message may have
  EXPECT_FALSE(DecodeHeader(AsBytes(large).first<kHeaderBytes>()).ok());
}

TEST(TcpWireTest, ABlocksHeaderSaysWhichAndHowLong) {
  const auto bytes = EncodeBlockHeader(65535, limits::kBlockBytesMax);
  const absl::StatusOr<Header> header = DecodeHeader(bytes);
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_TRUE(header->is_block());
  EXPECT_EQ(header->block, 65535u);
  EXPECT_EQ(header->body_bytes, limits::kBlockBytesMax);
  EXPECT_FALSE(DecodeHeader(EncodeBlockHeader(0, limits::kBlockBytesMax + 1)).ok());
}

TEST(TcpWireTest, AVerbsHeaderSaysWhichAndHowLongAndSoDoesItsAnswers) {
  // The last one is of a newer version: whoever answers knows whether it is known.
  for (const uint32_t number : {1u, 2u, 3u, 4u, 5u, 77u}) {
    const auto verb = static_cast<Verb>(number);
    const absl::StatusOr<Header> asked =
        DecodeHeader(EncodeVerbHeader(verb, limits::kTcpVerbBytesMax));
    ASSERT_TRUE(asked.ok()) << asked.status();
    EXPECT_TRUE(asked->is_verb());
    EXPECT_FALSE(asked->is_answer() || asked->is_block() || asked->is_message());
    EXPECT_EQ(asked->verb(), verb);
    EXPECT_EQ(asked->body_bytes, limits::kTcpVerbBytesMax);
    const absl::StatusOr<Header> answer = DecodeHeader(EncodeAnswerHeader(verb, 0));
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_TRUE(answer->is_answer());
    EXPECT_FALSE(answer->is_verb() || answer->is_block() || answer->is_message());
    EXPECT_EQ(answer->verb(), verb);
    EXPECT_EQ(answer->body_bytes, 0u);
  }
}

TEST(TcpWireTest, AVerbOrAnAnswerBeyondItsLimitIsRefused) {
  EXPECT_FALSE(DecodeHeader(EncodeVerbHeader(Verb::kLookup, limits::kTcpVerbBytesMax + 1)).ok());
  EXPECT_FALSE(DecodeHeader(EncodeAnswerHeader(Verb::kLookup, limits::kTcpVerbBytesMax + 1)).ok());
}

TEST(TcpWireTest, ATypeThatIsNotKnownIsNoMessage) {
  for (const uint32_t type : {5u, 0xffu, kVerbType, kAnswerType, kAnswerType + 1, ~0u}) {
    const absl::StatusOr<Message> message = DecodeBody({.type = type}, {});
    EXPECT_EQ(message.status().code(), absl::StatusCode::kInvalidArgument) << type;
  }
  // A larger body than a message's is none of a type that is not known either.
  auto header = EncodeAnswerHeader(Verb::kLookup, limits::kTcpMessageBytesMax + 1);
  EXPECT_TRUE(DecodeHeader(header).ok());
  ++header[4];
  EXPECT_FALSE(DecodeHeader(header).ok());
}

TEST(TcpWireTest, AStatusThatIsTooLongIsCut) {
  const std::string frame = Encode(Outcome{absl::InternalError(std::string(100'000, 'x'))});
  EXPECT_LE(frame.size(), kHeaderBytes + limits::kTcpMessageBytesMax);
  EXPECT_EQ(std::get<Outcome>(*Decode(frame)).status.message().size(), limits::kStatusTextBytesMax);
}

}  // namespace
}  // namespace reprise::lanes::tcp
