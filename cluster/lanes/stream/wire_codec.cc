#include "cluster/lanes/stream/wire_codec.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::lanes {
namespace {

// Protobuf's wire types (protobuf.dev, "Encoding").
enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

// Field numbers of the two messages (proto/reprise/v1/shard.proto). 0: the message has no such
// field.
struct Fields {
  uint32_t attachment;
  uint32_t reservation;
  uint32_t block;
  uint32_t offset;
};
constexpr Fields kReadResponse = {.attachment = 0, .reservation = 0, .block = 1, .offset = 2};
constexpr Fields kWriteRequest = {.attachment = 1, .reservation = 2, .block = 3, .offset = 4};
constexpr uint32_t kDataField = 15;
static_assert(kDataField < 16, "every tag is one byte");

class HeaderWriter {
 public:
  void Fixed64(uint32_t field, uint64_t value) {
    if (value == 0) return;
    Byte(field << 3 | kFixed64);
    for (int shift = 0; shift < 64; shift += 8) Byte(value >> shift);
  }
  void Varint(uint32_t field, uint64_t value) {
    if (value == 0) return;
    Byte(field << 3 | kVarint);
    RawVarint(value);
  }
  void Length(uint32_t field, uint64_t bytes) {
    Byte(field << 3 | kBytes);
    RawVarint(bytes);
  }
  const EncodedHeader& Done() const { return header_; }

 private:
  void RawVarint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) Byte(value | 0x80);
    Byte(value);
  }
  void Byte(uint64_t value) { header_.bytes[header_.size++] = static_cast<uint8_t>(value); }

  EncodedHeader header_;
};

EncodedHeader Encode(const Fields& fields, const ChunkHeader& chunk) {
  HeaderWriter writer;
  if (fields.attachment != 0) writer.Fixed64(fields.attachment, chunk.attachment);
  if (fields.reservation != 0) writer.Fixed64(fields.reservation, chunk.reservation);
  writer.Varint(fields.block, chunk.block);
  writer.Varint(fields.offset, chunk.offset_bytes);
  writer.Length(kDataField, chunk.data_bytes);
  return writer.Done();
}

// Walks over the pieces. Every read is checked: false at the end of the message.
class Cursor {
 public:
  explicit Cursor(Pieces pieces) : pieces_(pieces) {
    for (const auto& piece : pieces) total_ += piece.size();
  }

  bool AtEnd() const { return at_ == total_; }
  uint64_t at() const { return at_; }

  bool Byte(uint8_t& value) {
    if (AtEnd()) return false;
    while (within_ == pieces_[piece_].size()) NextPiece();
    value = pieces_[piece_][within_];
    ++within_;
    ++at_;
    return true;
  }

  // At most ten bytes; bits beyond the 64th are dropped, as protobuf does.
  bool Varint(uint64_t& value) {
    value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      uint8_t byte = 0;
      if (!Byte(byte)) return false;
      if (shift < 64) value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }

  bool Fixed64(uint64_t& value) {
    value = 0;
    for (int shift = 0; shift < 64; shift += 8) {
      uint8_t byte = 0;
      if (!Byte(byte)) return false;
      value |= static_cast<uint64_t>(byte) << shift;
    }
    return true;
  }

  bool Skip(uint64_t bytes) {
    if (bytes > total_ - at_) return false;
    at_ += bytes;
    while (bytes > 0) {
      const uint64_t here = std::min<uint64_t>(bytes, pieces_[piece_].size() - within_);
      within_ += here;
      bytes -= here;
      if (bytes > 0) NextPiece();
    }
    return true;
  }

 private:
  void NextPiece() {
    ++piece_;
    within_ = 0;
  }

  const Pieces pieces_;
  size_t piece_ = 0;
  uint64_t within_ = 0;
  uint64_t at_ = 0;
  uint64_t total_ = 0;
};

bool SkipValue(Cursor& cursor, uint32_t wire_type) {
  uint64_t value = 0;
  switch (wire_type) {
    case kVarint:
      return cursor.Varint(value);
    case kFixed64:
      return cursor.Skip(8);
    case kBytes:
      return cursor.Varint(value) && cursor.Skip(value);
    case kFixed32:
      return cursor.Skip(4);
    default:  // groups, which proto3 does not have
      return false;
  }
}

// Reads one field into `chunk`. False when the message is damaged here.
bool ParseField(const Fields& fields, Cursor& cursor, ParsedChunk& chunk) {
  uint64_t tag = 0;
  if (!cursor.Varint(tag)) return false;
  const uint64_t field = tag >> 3;
  const uint32_t wire_type = tag & 7;
  if (field == 0 || field > (1u << 29) - 1) return false;
  if (field == kDataField && wire_type == kBytes) {
    if (!cursor.Varint(chunk.header.data_bytes)) return false;
    chunk.data_at = cursor.at();
    return cursor.Skip(chunk.header.data_bytes);
  }
  if (field == fields.attachment && wire_type == kFixed64) {
    return cursor.Fixed64(chunk.header.attachment);
  }
  if (field == fields.reservation && wire_type == kFixed64) {
    return cursor.Fixed64(chunk.header.reservation);
  }
  if (field == fields.offset && wire_type == kVarint) {
    return cursor.Varint(chunk.header.offset_bytes);
  }
  if (field == fields.block && wire_type == kVarint) {
    uint64_t block = 0;
    if (!cursor.Varint(block)) return false;
    chunk.header.block = static_cast<uint32_t>(block);
    return true;
  }
  return SkipValue(cursor, wire_type);
}

absl::StatusOr<ParsedChunk> Parse(const Fields& fields, Pieces message) {
  Cursor cursor(message);
  ParsedChunk chunk;
  while (!cursor.AtEnd()) {
    const uint64_t at = cursor.at();
    if (!ParseField(fields, cursor, chunk)) {
      return Refusal(absl::StatusCode::kInvalidArgument, "MESSAGE_DAMAGED",
                     absl::StrCat("the message is no protobuf from byte ", at,
                                  " on: send it as reprise/v1/shard.proto defines it"));
    }
  }
  return chunk;
}

}  // namespace

EncodedHeader EncodeReadResponseHeader(const ChunkHeader& chunk) {
  return Encode(kReadResponse, chunk);
}

EncodedHeader EncodeWriteRequestHeader(const ChunkHeader& chunk) {
  return Encode(kWriteRequest, chunk);
}

absl::StatusOr<ParsedChunk> ParseReadResponse(Pieces message) {
  return Parse(kReadResponse, message);
}

absl::StatusOr<ParsedChunk> ParseWriteRequest(Pieces message) {
  return Parse(kWriteRequest, message);
}

void CopyOut(Pieces message, uint64_t from_byte, std::span<uint8_t> to) {
  for (const auto& piece : message) {
    if (to.empty()) return;
    if (from_byte >= piece.size()) {
      from_byte -= piece.size();
      continue;
    }
    const size_t bytes = std::min<size_t>(to.size(), piece.size() - from_byte);
    std::memcpy(to.data(), piece.data() + from_byte, bytes);
    to = to.subspan(bytes);
    from_byte = 0;
  }
  REPRISE_CHECK(to.empty());
}

}  // namespace reprise::lanes
