// A block's name: 32 bytes that stand for a token block and every block before it. Compared in
// full, always.
//
// Thread safety: values; no shared state.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace reprise {

inline constexpr size_t kDigestBytes = 32;

// 32 bytes with a meaning. `Tag` keeps a key from being passed where a fingerprint is meant.
template <typename Tag>
struct Digest {
  std::array<uint8_t, kDigestBytes> bytes{};

  friend bool operator==(const Digest&, const Digest&) = default;
  friend auto operator<=>(const Digest&, const Digest&) = default;

  // The bytes are uniformly distributed already (or an engine's hash that is).
  template <typename H>
  friend H AbslHashValue(H h, const Digest& d) {
    uint64_t words[4];
    std::memcpy(words, d.bytes.data(), sizeof(words));
    return H::combine(std::move(h), words[0], words[1], words[2], words[3]);
  }

  uint64_t Prefix64() const {
    uint64_t word;
    std::memcpy(&word, bytes.data(), sizeof(word));
    return word;
  }
};

using BlockKey = Digest<struct BlockKeyTag>;
using Fingerprint = Digest<struct FingerprintTag>;

std::string DigestToHex(std::span<const uint8_t, kDigestBytes> bytes);

template <typename Tag>
std::string ToHex(const Digest<Tag>& digest) {
  return DigestToHex(digest.bytes);
}

// INVALID_ARGUMENT unless `hex` is 64 hexadecimal digits.
absl::StatusOr<BlockKey> BlockKeyFromHex(absl::string_view hex);
absl::StatusOr<Fingerprint> FingerprintFromHex(absl::string_view hex);

// Reads keys packed one after another (the wire form). INVALID_ARGUMENT, naming `field`, when the
// length is no multiple of 32, there are more than kPromptBlocksMax keys, or a key occurs twice.
absl::StatusOr<std::vector<BlockKey>> UnpackKeys(absl::string_view packed, absl::string_view field);
std::string PackKeys(std::span<const BlockKey> keys);

}  // namespace reprise
