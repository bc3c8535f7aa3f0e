#include "cluster/lanes/stream/wire_codec.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "proto/types/refusal.h"
#include "reprise/v1/shard.pb.h"

namespace reprise::lanes {
namespace {

using Bytes = std::vector<uint8_t>;

// `message` cut into pieces at random places, empty ones included.
class Cut {
 public:
  Cut(const std::string& message, uint32_t seed) {
    std::mt19937 random(seed);
    for (size_t at = 0; at < message.size();) {
      const size_t bytes = std::min<size_t>(random() % 7, message.size() - at);
      parts_.emplace_back(message.begin() + at, message.begin() + at + bytes);
      at += bytes;
    }
    for (const Bytes& part : parts_) pieces_.emplace_back(part);
  }
  Pieces get() const { return pieces_; }

 private:
  std::vector<Bytes> parts_;
  std::vector<std::span<const uint8_t>> pieces_;
};

std::string Data(size_t bytes) {
  std::string data(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) data[i] = static_cast<char>(i * 31 + 7);
  return data;
}

std::string DataOf(Pieces pieces, const ParsedChunk& chunk) {
  std::string data(chunk.header.data_bytes, '\0');
  CopyOut(pieces, chunk.data_at, {reinterpret_cast<uint8_t*>(data.data()), data.size()});
  return data;
}

TEST(WireCodecTest, OurHeadersParseWithThePublishedProto) {
  for (const uint64_t offset : {0ull, 1ull, 127ull, 128ull, 1ull << 20, ~0ull}) {
    for (const uint32_t block : {0u, 1u, 200u, 0xffff'ffffu}) {
      const ChunkHeader chunk{.attachment = 0x8000'0000'0000'0001,
                              .reservation = 77,
                              .block = block,
                              .offset_bytes = offset,
                              .data_bytes = 300};
      const EncodedHeader read_header = EncodeReadResponseHeader(chunk);
      const EncodedHeader write_header = EncodeWriteRequestHeader(chunk);
      ASSERT_LE(write_header.size, kChunkHeaderBytesMax);
      v1::ReadResponse read;
      ASSERT_TRUE(read.ParseFromString(
          std::string(read_header.bytes.begin(), read_header.bytes.begin() + read_header.size) +
          Data(300)));
      EXPECT_EQ(read.block(), block);
      EXPECT_EQ(read.offset_bytes(), offset);
      EXPECT_EQ(read.data(), Data(300));
      v1::WriteRequest write;
      ASSERT_TRUE(write.ParseFromString(
          std::string(write_header.bytes.begin(), write_header.bytes.begin() + write_header.size) +
          Data(300)));
      EXPECT_EQ(write.attachment_id(), chunk.attachment);
      EXPECT_EQ(write.reservation_id(), chunk.reservation);
      EXPECT_EQ(write.block(), block);
      EXPECT_EQ(write.offset_bytes(), offset);
      EXPECT_EQ(write.data(), Data(300));
    }
  }
}

TEST(WireCodecTest, WhatProtobufWritesParsesHereHoweverItIsCut) {
  for (uint32_t seed = 0; seed < 200; ++seed) {
    v1::WriteRequest write;
    write.set_attachment_id(seed * 0x1234'5678'9abcull);
    write.set_reservation_id(seed);
    write.set_block(seed * 7'654'321);
    write.set_offset_bytes(uint64_t{seed} << (seed % 60));
    write.set_data(Data(seed * 3));
    const Cut message(write.SerializeAsString(), seed);
    const absl::StatusOr<ParsedChunk> parsed = ParseWriteRequest(message.get());
    ASSERT_TRUE(parsed.ok()) << seed << parsed.status();
    EXPECT_EQ(parsed->header.attachment, write.attachment_id());
    EXPECT_EQ(parsed->header.reservation, write.reservation_id());
    EXPECT_EQ(parsed->header.block, write.block());
    EXPECT_EQ(parsed->header.offset_bytes, write.offset_bytes());
    EXPECT_EQ(DataOf(message.get(), *parsed), write.data());

    v1::ReadResponse read;
    read.set_block(write.block());
    read.set_offset_bytes(write.offset_bytes());
    read.set_data(write.data());
    const Cut answer(read.SerializeAsString(), seed);
    const absl::StatusOr<ParsedChunk> parsed_answer = ParseReadResponse(answer.get());
    ASSERT_TRUE(parsed_answer.ok()) << seed << parsed_answer.status();
    EXPECT_EQ(parsed_answer->header.block, read.block());
    EXPECT_EQ(parsed_answer->header.offset_bytes, read.offset_bytes());
    EXPECT_EQ(DataOf(answer.get(), *parsed_answer), read.data());
  }
}

TEST(WireCodecTest, FieldsMayComeInAnyOrderAndUnknownOnesAreSkipped) {
  v1::ReadResponse first;
  first.set_data("first");
  v1::ReadResponse last;
  last.set_data("last");
  v1::ReadResponse block;
  block.set_block(9);
  const std::string varint("\x98\x06\x05", 3);               // field 99
  const std::string fixed32("\x9d\x06\x01\x02\x03\x04", 6);  // field 99
  const std::string fixed64("\x99\x06 8 bytes", 10);
  const std::string text("\x9a\x06\x02hi", 5);
  const std::string message = first.SerializeAsString() + varint + last.SerializeAsString() +
                              fixed32 + fixed64 + text + block.SerializeAsString();
  v1::ReadResponse expected;
  ASSERT_TRUE(expected.ParseFromString(message));
  const Cut cut(message, 3);
  const absl::StatusOr<ParsedChunk> parsed = ParseReadResponse(cut.get());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->header.block, expected.block());
  EXPECT_EQ(DataOf(cut.get(), *parsed), expected.data());
}

TEST(WireCodecTest, AMessageCutOffAnywhereIsRefused) {
  v1::WriteRequest write;
  write.set_attachment_id(1);
  write.set_block(300);
  write.set_data("the data");
  const std::string whole = write.SerializeAsString();
  const size_t fields[] = {0, 9, 12, whole.size()};  // where a field ends
  for (size_t length = 0; length <= whole.size(); ++length) {
    const bool at_end = std::find(std::begin(fields), std::end(fields), length) != std::end(fields);
    const Cut cut(whole.substr(0, length), 5);
    const absl::StatusOr<ParsedChunk> parsed = ParseWriteRequest(cut.get());
    EXPECT_EQ(parsed.ok(), at_end) << length;
    EXPECT_EQ(RefusalReason(parsed.status()), at_end ? "" : "MESSAGE_DAMAGED");
  }
}

TEST(WireCodecTest, LengthsBeyondTheMessageGroupsAndFieldZeroAreRefused) {
  for (const std::string& message :
       {std::string("\x7a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11),  // data of 2^64 - 1 bytes
        std::string("\x7a\x05"
                    "abcd",
                    6),              // one byte short
        std::string("\x0b\x0c", 2),  // a group
        std::string("\x00\x00", 2),  // field 0
        std::string(11, '\xff')}) {  // a varint without end
    const Cut cut(message, 1);
    EXPECT_EQ(RefusalReason(ParseReadResponse(cut.get()).status()), "MESSAGE_DAMAGED");
    EXPECT_EQ(RefusalReason(ParseWriteRequest(cut.get()).status()), "MESSAGE_DAMAGED");
  }
}

}  // namespace
}  // namespace reprise::lanes
