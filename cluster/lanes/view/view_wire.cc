#include "cluster/lanes/view/view_wire.h"

#include <array>
#include <cstring>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cluster/lanes/message_fields.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::lanes::view {
namespace {

constexpr uint32_t kMagic = 0x32565052;  // "RPV2"

constexpr size_t kPlaceBytes = 2 * sizeof(uint64_t) + sizeof(uint32_t);

absl::Status Malformed(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("view message: ", what));
}

MemoryKind Memory(FieldReader& r) {
  const uint32_t memory = r.U32();
  if (memory > static_cast<uint32_t>(MemoryKind::kDevice)) r.Fail();
  return static_cast<MemoryKind>(memory);
}

// How many elements of this size follow; none when the count and the bytes that are left disagree.
uint32_t Count(FieldReader& r, size_t element_bytes) {
  const uint32_t count = r.U32();
  if (count <= limits::kPromptBlocksMax && uint64_t{count} * element_bytes == r.left())
    return count;
  r.Fail();
  return 0;
}

void Put(FieldWriter& w, const Hello& m) {
  w.U64(m.attachment.value);
}
void Put(FieldWriter& w, const OpenRead& m) {
  w.U64(m.lease.value);
  w.U32(m.first);
  w.U32(m.blocks);
  w.U64(m.block_bytes);
}
void Put(FieldWriter& w, const OpenWrite& m) {
  w.U64(m.reservation.value);
  w.U64(m.block_bytes);
  w.U32(static_cast<uint32_t>(m.blocks.size()));
  for (const uint32_t block : m.blocks) w.U32(block);
}
void Put(FieldWriter& w, const MapExtent& m) {
  w.U64(m.extent);
}
void Put(FieldWriter& w, const Written& m) {
  w.U32(m.blocks);
}
void Put(FieldWriter& w, const Done& m) {
  if (m.blocks.has_value()) w.U32(*m.blocks);
}
void Put(FieldWriter& w, const Places& m) {
  w.StatusOf(m.status);
  w.U32(static_cast<uint32_t>(m.places.size()));
  for (const Place& place : m.places) {
    w.U64(place.extent);
    w.U64(place.offset_bytes);
    w.U32(static_cast<uint32_t>(place.memory));
  }
}
void Put(FieldWriter& w, const Extent& m) {
  w.StatusOf(m.status);
  w.U64(m.extent_bytes);
  w.U32(static_cast<uint32_t>(m.device ? MemoryKind::kDevice : MemoryKind::kHost));
  if (!m.device) return;
  w.Bytes(m.device->ipc);
  w.Bytes(m.device->device_uuid);
}
void Put(FieldWriter& w, const Outcome& m) {
  w.StatusOf(m.status);
}

void Get(FieldReader& r, Hello& m) {
  m.attachment = AttachmentId(r.U64());
}
void Get(FieldReader& r, OpenRead& m) {
  m.lease = LeaseId(r.U64());
  m.first = r.U32();
  m.blocks = r.U32();
  m.block_bytes = r.U64();
}
void Get(FieldReader& r, OpenWrite& m) {
  m.reservation = ReservationId(r.U64());
  m.block_bytes = r.U64();
  m.blocks.resize(Count(r, sizeof(uint32_t)));
  for (uint32_t& block : m.blocks) block = r.U32();
}
void Get(FieldReader& r, MapExtent& m) {
  m.extent = r.U64();
}
void Get(FieldReader& r, Written& m) {
  m.blocks = r.U32();
}
void Get(FieldReader& r, Done& m) {
  if (r.left() > 0) m.blocks = r.U32();
}
void Get(FieldReader& r, Places& m) {
  m.status = r.StatusOf();
  m.places.resize(Count(r, kPlaceBytes));
  for (Place& place : m.places) {
    place.extent = r.U64();
    place.offset_bytes = r.U64();
    place.memory = Memory(r);
  }
}
void Get(FieldReader& r, Extent& m) {
  m.status = r.StatusOf();
  m.extent_bytes = r.U64();
  if (Memory(r) == MemoryKind::kHost) return;
  m.device.emplace();
  m.device->ipc = r.Bytes<sizeof(m.device->ipc)>();
  m.device->device_uuid = r.Bytes<sizeof(m.device->device_uuid)>();
}
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
  FieldWriter frame;
  frame.U32(kMagic);
  frame.U32(static_cast<uint32_t>(message.index()));
  frame.U32(static_cast<uint32_t>(body.out.size()));
  return std::move(frame.out) + body.out;
}

absl::StatusOr<Header> DecodeHeader(std::span<const uint8_t, kHeaderBytes> bytes) {
  FieldReader reader(bytes);
  if (reader.U32() != kMagic) return Malformed("not a header of this version");
  Header header;
  header.type = reader.U32();
  header.body_bytes = reader.U32();
  if (header.body_bytes > limits::kViewMessageBytesMax) {
    return Malformed(absl::StrCat("a body of ", header.body_bytes, " bytes; at most ",
                                  limits::kViewMessageBytesMax));
  }
  return header;
}

absl::StatusOr<Message> DecodeBody(const Header& header, std::span<const uint8_t> body) {
  return DecodeAs(header.type, body);
}

}  // namespace reprise::lanes::view
