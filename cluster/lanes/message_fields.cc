#include "cluster/lanes/message_fields.h"

#include <cstring>

#include "proto/types/limits.h"
#include "proto/types/refusal.h"

namespace reprise::lanes {

void FieldWriter::Text(absl::string_view text) {
  text = text.substr(0, limits::kStatusTextBytesMax);
  U32(static_cast<uint32_t>(text.size()));
  Raw(text.data(), text.size());
}

void FieldWriter::StatusOf(const absl::Status& status) {
  U32(static_cast<uint32_t>(status.raw_code()));
  Text(RefusalReason(status));
  Text(status.message());
}

uint32_t FieldReader::U32() {
  uint32_t value = 0;
  Raw(&value, sizeof(value));
  return value;
}

uint64_t FieldReader::U64() {
  uint64_t value = 0;
  Raw(&value, sizeof(value));
  return value;
}

absl::Status FieldReader::StatusOf() {
  const uint32_t code = U32();
  const std::string reason = Text();
  const std::string message = Text();
  if (code > static_cast<uint32_t>(absl::StatusCode::kUnauthenticated)) ok_ = false;
  if (!ok_ || code == 0) return absl::OkStatus();
  if (reason.empty()) return absl::Status(static_cast<absl::StatusCode>(code), message);
  return Refusal(static_cast<absl::StatusCode>(code), reason, message);
}

void FieldReader::Raw(void* to, size_t bytes) {
  if (in_.size() < bytes) {
    ok_ = false;
    return;
  }
  std::memcpy(to, in_.data(), bytes);
  in_ = in_.subspan(bytes);
}

std::string FieldReader::Text() {
  const uint32_t bytes = U32();
  if (bytes > limits::kStatusTextBytesMax || bytes > in_.size()) {
    ok_ = false;
    return "";
  }
  std::string text(reinterpret_cast<const char*>(in_.data()), bytes);
  in_ = in_.subspan(bytes);
  return text;
}

}  // namespace reprise::lanes
