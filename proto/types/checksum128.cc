#include "proto/types/checksum128.h"

#include <cstring>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "proto/types/refusal.h"

namespace reprise {

std::string ToHex(const Checksum128& checksum) {
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(checksum.bytes.data()), kChecksumBytes));
}

absl::StatusOr<std::vector<Checksum128>> UnpackChecksums(absl::string_view packed,
                                                         absl::string_view field) {
  if (packed.size() % kChecksumBytes != 0) {
    return Refusal(absl::StatusCode::kInvalidArgument, "CHECKSUMS_LENGTH",
                   absl::StrCat(field, " has ", packed.size(), " bytes, which is no multiple of ",
                                kChecksumBytes, ": pack one 16-byte checksum per block"));
  }
  std::vector<Checksum128> checksums(packed.size() / kChecksumBytes);
  if (!checksums.empty()) std::memcpy(checksums.data(), packed.data(), packed.size());
  return checksums;
}

std::string PackChecksums(std::span<const Checksum128> checksums) {
  static_assert(sizeof(Checksum128) == kChecksumBytes);
  return std::string(reinterpret_cast<const char*>(checksums.data()), checksums.size_bytes());
}

}  // namespace reprise
