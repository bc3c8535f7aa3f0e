#include "cluster/lanes/view/view_wire.h"

#include <array>
#include <cstring>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
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

class Writer {
 public:
  void U32(uint32_t v) { Raw(&v, sizeof(v)); }
  void U64(uint64_t v) { Raw(&v, sizeof(v)); }
  void Text(absl::string_view text) {
    text = text.substr(0, limits::kViewStatusTextBytesMax);
    U32(static_cast<uint32_t>(text.size()));
    Raw(text.data(), text.size());
  }
  template <size_t kBytes>
  void Bytes(const std::array<uint8_t, kBytes>& bytes) {
    Raw(bytes.data(), kBytes);
  }
  void StatusOf(const absl::Status& status) {
    U32(static_cast<uint32_t>(status.raw_code()));
    Text(RefusalReason(status));
    Text(status.message());
  }
  std::string out;

 private:
  void Raw(const void* data, size_t bytes) { out.append(static_cast<const char*>(data), bytes); }
};

// Reads past the end give zeros and make ok() false, so that a decoder checks once.
class Reader {
 public:
  explicit Reader(std::span<const uint8_t> in) : in_(in) {}
  uint32_t U32() { return Number<uint32_t>(); }
  uint64_t U64() { return Number<uint64_t>(); }
  std::string Text() {
    const uint32_t bytes = U32();
    if (bytes > limits::kViewStatusTextBytesMax || bytes > in_.size()) {
      ok_ = false;
      return "";
    }
    std::string text(reinterpret_cast<const char*>(in_.data()), bytes);
    in_ = in_.subspan(bytes);
    return text;
  }
  template <size_t kBytes>
  std::array<uint8_t, kBytes> Bytes() {
    return Number<std::array<uint8_t, kBytes>>();
  }
  MemoryKind Memory() {
    const uint32_t memory = U32();
    if (memory > static_cast<uint32_t>(MemoryKind::kDevice)) ok_ = false;
    return static_cast<MemoryKind>(memory);
  }
  absl::Status StatusOf() {
    const uint32_t code = U32();
    const std::string reason = Text();
    const std::string message = Text();
    if (code > static_cast<uint32_t>(absl::StatusCode::kUnauthenticated)) ok_ = false;
    if (!ok_ || code == 0) return absl::OkStatus();
    if (reason.empty()) return absl::Status(static_cast<absl::StatusCode>(code), message);
    return Refusal(static_cast<absl::StatusCode>(code), reason, message);
  }
  // How many elements of this size follow; none when the count and the bytes that are left
  // disagree.
  uint32_t Count(size_t element_bytes) {
    const uint32_t count = U32();
    if (count > limits::kPromptBlocksMax || uint64_t{count} * element_bytes != in_.size()) {
      ok_ = false;
      return 0;
    }
    return count;
  }
  bool ok() const { return ok_ && in_.empty(); }

 private:
  template <typename T>
  T Number() {
    T value{};
    if (in_.size() < sizeof(T)) {
      ok_ = false;
      return T{};
    }
    std::memcpy(&value, in_.data(), sizeof(T));
    in_ = in_.subspan(sizeof(T));
    return value;
  }

  std::span<const uint8_t> in_;
  bool ok_ = true;
};

void Put(Writer& w, const Hello& m) {
  w.U64(m.attachment.value);
}
void Put(Writer& w, const OpenRead& m) {
  w.U64(m.lease.value);
  w.U32(m.first);
  w.U32(m.blocks);
  w.U64(m.block_bytes);
}
void Put(Writer& w, const OpenWrite& m) {
  w.U64(m.reservation.value);
  w.U64(m.block_bytes);
  w.U32(static_cast<uint32_t>(m.blocks.size()));
  for (const uint32_t block : m.blocks) w.U32(block);
}
void Put(Writer& w, const MapExtent& m) {
  w.U64(m.extent);
}
void Put(Writer& w, const Written& m) {
  w.U32(m.blocks);
}
void Put(Writer& w, const Done& m) {
  if (m.blocks.has_value()) w.U32(*m.blocks);
}
void Put(Writer& w, const Places& m) {
  w.StatusOf(m.status);
  w.U32(static_cast<uint32_t>(m.places.size()));
  for (const Place& place : m.places) {
    w.U64(place.extent);
    w.U64(place.offset_bytes);
    w.U32(static_cast<uint32_t>(place.memory));
  }
}
void Put(Writer& w, const Extent& m) {
  w.StatusOf(m.status);
  w.U64(m.extent_bytes);
  w.U32(static_cast<uint32_t>(m.device ? MemoryKind::kDevice : MemoryKind::kHost));
  if (!m.device) return;
  w.Bytes(m.device->ipc);
  w.Bytes(m.device->device_uuid);
}
void Put(Writer& w, const Outcome& m) {
  w.StatusOf(m.status);
}

void Get(Reader& r, Hello& m) {
  m.attachment = AttachmentId(r.U64());
}
void Get(Reader& r, OpenRead& m) {
  m.lease = LeaseId(r.U64());
  m.first = r.U32();
  m.blocks = r.U32();
  m.block_bytes = r.U64();
}
void Get(Reader& r, OpenWrite& m) {
  m.reservation = ReservationId(r.U64());
  m.block_bytes = r.U64();
  m.blocks.resize(r.Count(sizeof(uint32_t)));
  for (uint32_t& block : m.blocks) block = r.U32();
}
void Get(Reader& r, MapExtent& m) {
  m.extent = r.U64();
}
void Get(Reader& r, Written& m) {
  m.blocks = r.U32();
}
void Get(Reader& r, Done& m) {
  if (!r.ok()) m.blocks = r.U32();
}
void Get(Reader& r, Places& m) {
  m.status = r.StatusOf();
  m.places.resize(r.Count(kPlaceBytes));
  for (Place& place : m.places) {
    place.extent = r.U64();
    place.offset_bytes = r.U64();
    place.memory = r.Memory();
  }
}
void Get(Reader& r, Extent& m) {
  m.status = r.StatusOf();
  m.extent_bytes = r.U64();
  if (r.Memory() == MemoryKind::kHost) return;
  m.device.emplace();
  m.device->ipc = r.Bytes<sizeof(m.device->ipc)>();
  m.device->device_uuid = r.Bytes<sizeof(m.device->device_uuid)>();
}
void Get(Reader& r, Outcome& m) {
  m.status = r.StatusOf();
}

template <size_t kType = 0>
absl::StatusOr<Message> DecodeAs(uint32_t type, std::span<const uint8_t> body) {
  if constexpr (kType == std::variant_size_v<Message>) {
    return Malformed(absl::StrCat("type ", type, " is unknown"));
  } else {
    if (type != kType) return DecodeAs<kType + 1>(type, body);
    std::variant_alternative_t<kType, Message> message;
    Reader reader(body);
    Get(reader, message);
    if (!reader.ok())
      return Malformed(absl::StrCat("a body of type ", type, " has the wrong length"));
    return Message(std::move(message));
  }
}

}  // namespace

std::string Encode(const Message& message) {
  Writer body;
  std::visit([&](const auto& m) { Put(body, m); }, message);
  Writer frame;
  frame.U32(kMagic);
  frame.U32(static_cast<uint32_t>(message.index()));
  frame.U32(static_cast<uint32_t>(body.out.size()));
  return std::move(frame.out) + body.out;
}

absl::StatusOr<Header> DecodeHeader(std::span<const uint8_t, kHeaderBytes> bytes) {
  Reader reader(bytes);
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
