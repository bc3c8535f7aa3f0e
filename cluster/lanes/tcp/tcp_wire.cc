#include "cluster/lanes/tcp/tcp_wire.h"

#include <cstring>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cluster/lanes/message_fields.h"
#include "proto/types/limits.h"

namespace reprise::lanes::tcp {
namespace {

constexpr uint32_t kMagic = 0x31545052;  // "RPT1"

absl::Status Malformed(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("tcp message: ", what));
}

std::array<uint8_t, kHeaderBytes> EncodeHeader(const Header& header) {
  const std::array<uint32_t, 4> fields = {kMagic, header.type, header.block, header.body_bytes};
  std::array<uint8_t, kHeaderBytes> bytes;
  static_assert(sizeof(fields) == sizeof(bytes));
  std::memcpy(bytes.data(), fields.data(), bytes.size());
  return bytes;
}

uint64_t BodyBytesMax(const Header& header) {
  if (header.is_block()) return limits::kBlockBytesMax;
  if (header.is_verb() || header.is_answer()) return limits::kTcpVerbBytesMax;
  return limits::kTcpMessageBytesMax;
}

void Put(FieldWriter& w, const Hello& m) {
  w.U64(m.attachment.value);
}
void Put(FieldWriter& w, const Read& m) {
  w.U64(m.lease.value);
  w.U32(m.first);
  w.U32(m.blocks);
  w.U64(m.block_bytes);
}
void Put(FieldWriter& w, const Write& m) {
  w.U64(m.reservation.value);
  w.U64(m.block_bytes);
}
void Put(FieldWriter&, const WriteEnd&) {}
void Put(FieldWriter& w, const Outcome& m) {
  w.StatusOf(m.status);
}

void Get(FieldReader& r, Hello& m) {
  m.attachment = AttachmentId(r.U64());
}
void Get(FieldReader& r, Read& m) {
  m.lease = LeaseId(r.U64());
  m.first = r.U32();
  m.blocks = r.U32();
  m.block_bytes = r.U64();
}
void Get(FieldReader& r, Write& m) {
  m.reservation = ReservationId(r.U64());
  m.block_bytes = r.U64();
}
void Get(FieldReader&, WriteEnd&) {}
void Get(FieldReader& r, Outcome& m) {
  m.status = r.StatusOf();
}

template <size_t kType = 0>
absl::StatusOr<Message> DecodeAs(uint32_t type, std::span<const uint8_t> body) {
  if constexpr (kType == std::variant_size_v<Message>) {
    return Malformed(absl::StrCat("type ", type, " is unknown"));
  } else {
    if (type != kType) return DecodeAs<kType + 1>(type, body);
    std::variant_alternative_t<kType, Message> message;
    FieldReader reader(body);
    Get(reader, message);
    if (!reader.ok())
      return Malformed(absl::StrCat("a body of type ", type, " has the wrong length"));
    return Message(std::move(message));
  }
}

}  // namespace

std::string Encode(const Message& message) {
  FieldWriter body;
  std::visit([&](const auto& m) { Put(body, m); }, message);
  const auto header = EncodeHeader({.type = static_cast<uint32_t>(message.index()),
                                    .body_bytes = static_cast<uint32_t>(body.out.size())});
  return std::string(header.begin(), header.end()) + body.out;
}

std::array<uint8_t, kHeaderBytes> EncodeBlockHeader(uint32_t block, uint64_t body_bytes) {
  return EncodeHeader(
      {.type = kBlockType, .block = block, .body_bytes = static_cast<uint32_t>(body_bytes)});
}

std::array<uint8_t, kHeaderBytes> EncodeVerbHeader(Verb verb, uint64_t body_bytes) {
  return EncodeHeader({.type = kVerbType,
                       .block = static_cast<uint32_t>(verb),
                       .body_bytes = static_cast<uint32_t>(body_bytes)});
}

std::array<uint8_t, kHeaderBytes> EncodeAnswerHeader(Verb verb, uint64_t body_bytes) {
  return EncodeHeader({.type = kAnswerType,
                       .block = static_cast<uint32_t>(verb),
                       .body_bytes = static_cast<uint32_t>(body_bytes)});
}

absl::StatusOr<Header> DecodeHeader(std::span<const uint8_t, kHeaderBytes> bytes) {
  FieldReader reader(bytes);
  if (reader.U32() != kMagic) return Malformed("not a header of this version");
  Header header;
  header.type = reader.U32();
  header.block = reader.U32();
  header.body_bytes = reader.U32();
  const uint64_t most = BodyBytesMax(header);
  if (header.body_bytes > most) {
    return Malformed(absl::StrCat("a body of ", header.body_bytes, " bytes; at most ", most));
  }
  return header;
}

absl::StatusOr<Message> DecodeBody(const Header& header, std::span<const uint8_t> body) {
  return DecodeAs(header.type, body);
}

}  // namespace reprise::lanes::tcp
