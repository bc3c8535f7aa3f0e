#include "proto/types/block_key.h"

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"

namespace reprise {
namespace {

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

template <typename D>
absl::StatusOr<D> DigestFromHex(absl::string_view hex, absl::string_view what) {
  D digest;
  bool good = hex.size() == 2 * kDigestBytes;
  for (size_t i = 0; good && i < kDigestBytes; ++i) {
    const int high = HexValue(hex[2 * i]);
    const int low = HexValue(hex[2 * i + 1]);
    good = high >= 0 && low >= 0;
    digest.bytes[i] = static_cast<uint8_t>(high * 16 + low);
  }
  if (good) return digest;
  return Refusal(absl::StatusCode::kInvalidArgument, "HEX_DIGEST",
                 absl::StrCat(what, " \"", hex.substr(0, 80), "\" is not 64 hexadecimal digits"));
}

}  // namespace

std::string DigestToHex(std::span<const uint8_t, kDigestBytes> bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(2 * kDigestBytes);
  for (uint8_t byte : bytes) {
    hex.push_back(kDigits[byte >> 4]);
    hex.push_back(kDigits[byte & 15]);
  }
  return hex;
}

absl::StatusOr<BlockKey> BlockKeyFromHex(absl::string_view hex) {
  return DigestFromHex<BlockKey>(hex, "block key");
}

absl::StatusOr<Fingerprint> FingerprintFromHex(absl::string_view hex) {
  return DigestFromHex<Fingerprint>(hex, "fingerprint");
}

absl::StatusOr<std::vector<BlockKey>> UnpackKeys(absl::string_view packed,
                                                 absl::string_view field) {
  if (packed.size() % kDigestBytes != 0) {
    return Refusal(absl::StatusCode::kInvalidArgument, "KEYS_LENGTH",
                   absl::StrCat(field, " has ", packed.size(), " bytes, which is no multiple of ",
                                kDigestBytes, ": pack one 32-byte key per block"));
  }
  const size_t count = packed.size() / kDigestBytes;
  if (count > limits::kPromptBlocksMax) {
    return Refusal(absl::StatusCode::kInvalidArgument, "KEYS_TOO_MANY",
                   absl::StrCat(field, " has ", count, " keys, more than kPromptBlocksMax = ",
                                limits::kPromptBlocksMax, ": split the prompt"));
  }
  std::vector<BlockKey> keys(count);
  if (count > 0) std::memcpy(keys.data(), packed.data(), packed.size());
  absl::flat_hash_set<BlockKey> seen;
  seen.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    if (!seen.insert(keys[i]).second) {
      return Refusal(absl::StatusCode::kInvalidArgument, "KEYS_DUPLICATE",
                     absl::StrCat(field, "[", i, "] = ", ToHex(keys[i]),
                                  " occurs twice: a chain's keys are all different"));
    }
  }
  return keys;
}

std::string PackKeys(std::span<const BlockKey> keys) {
  static_assert(sizeof(BlockKey) == kDigestBytes);
  return std::string(reinterpret_cast<const char*>(keys.data()), keys.size_bytes());
}

}  // namespace reprise
