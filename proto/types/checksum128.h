// The 128-bit block checksum as a value. Its definition is kernels/checksum/checksum.h.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace reprise {

inline constexpr size_t kChecksumBytes = 16;

struct Checksum128 {
  std::array<uint8_t, kChecksumBytes> bytes{};
  friend bool operator==(const Checksum128&, const Checksum128&) = default;
};

std::string ToHex(const Checksum128& checksum);

// Checksums packed one after another (the wire form). INVALID_ARGUMENT, naming `field`, when the
// length is no multiple of 16.
absl::StatusOr<std::vector<Checksum128>> UnpackChecksums(absl::string_view packed,
                                                         absl::string_view field);
std::string PackChecksums(std::span<const Checksum128> checksums);

}  // namespace reprise
