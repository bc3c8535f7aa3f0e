// The fields of messages that lanes send beside gRPC: little-endian numbers, and statuses with
// their reasons.
//
// Thread safety: values.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace reprise::lanes {

class FieldWriter {
 public:
  void U32(uint32_t v) { Raw(&v, sizeof(v)); }
  void U64(uint64_t v) { Raw(&v, sizeof(v)); }
  template <size_t kBytes>
  void Bytes(const std::array<uint8_t, kBytes>& bytes) {
    Raw(bytes.data(), kBytes);
  }
  // Texts are cut to limits::kStatusTextBytesMax.
  void StatusOf(const absl::Status& status);

  std::string out;

 private:
  void Raw(const void* data, size_t bytes) { out.append(static_cast<const char*>(data), bytes); }
  void Text(absl::string_view text);
};

// Reads past the end give zeros and make ok() false, so that a decoder checks once.
class FieldReader {
 public:
  explicit FieldReader(std::span<const uint8_t> in) : in_(in) {}

  uint32_t U32();
  uint64_t U64();
  template <size_t kBytes>
  std::array<uint8_t, kBytes> Bytes() {
    std::array<uint8_t, kBytes> bytes{};
    Raw(bytes.data(), kBytes);
    return bytes;
  }
  absl::Status StatusOf();

  // Bytes that are left.
  size_t left() const { return in_.size(); }
  void Fail() { ok_ = false; }
  // Nothing was missing and nothing is left.
  bool ok() const { return ok_ && in_.empty(); }

 private:
  void Raw(void* to, size_t bytes);
  std::string Text();

  std::span<const uint8_t> in_;
  bool ok_ = true;
};

}  // namespace reprise::lanes
