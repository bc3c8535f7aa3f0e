// Block bytes that follow from a key and a seed, so that any reader can tell whether what it got is
// what was written, byte for byte, without having kept a copy.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "kernels/checksum/checksum.h"
#include "proto/types/block_key.h"
#include "proto/types/cache_spec.h"
#include "proto/types/checksum128.h"
#include "proto/types/sha256.h"

namespace reprise::testing {

// The 64-bit word at `index` of a block (SplitMix64, Steele et al., OOPSLA 2014).
inline uint64_t ContentWord(uint64_t start, uint64_t index) {
  uint64_t z = start + (index + 1) * 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

inline uint64_t ContentStart(const BlockKey& key, uint64_t seed) {
  return ContentWord(key.Prefix64(), seed);
}

inline void FillContent(const BlockKey& key, uint64_t seed, std::span<uint8_t> bytes) {
  const uint64_t start = ContentStart(key, seed);
  for (size_t at = 0; at < bytes.size(); at += sizeof(uint64_t)) {
    const uint64_t word = ContentWord(start, at / sizeof(uint64_t));
    std::memcpy(bytes.data() + at, &word, std::min(sizeof(word), bytes.size() - at));
  }
}

inline bool HasContent(const BlockKey& key, uint64_t seed, std::span<const uint8_t> bytes) {
  const uint64_t start = ContentStart(key, seed);
  for (size_t at = 0; at < bytes.size(); at += sizeof(uint64_t)) {
    const uint64_t word = ContentWord(start, at / sizeof(uint64_t));
    if (std::memcmp(bytes.data() + at, &word, std::min(sizeof(word), bytes.size() - at)) != 0) {
      return false;
    }
  }
  return true;
}

inline Checksum128 ChecksumOf(std::span<const uint8_t> bytes, uint64_t section_bytes) {
  Checksum128 checksum;
  kernels::ChecksumBlock(bytes.data(), bytes.size(), section_bytes, checksum.bytes.data());
  return checksum;
}

// A key that stands for `name`; keys of different names differ.
inline BlockKey KeyNamed(absl::string_view name) {
  BlockKey key;
  Sha256().Hash({reinterpret_cast<const uint8_t*>(name.data()), name.size()}, key.bytes);
  return key;
}

// The keys of a chain of blocks: equal names have equal prefixes.
inline std::vector<BlockKey> ChainNamed(absl::string_view name, size_t blocks) {
  std::vector<BlockKey> keys;
  for (size_t i = 0; i < blocks; ++i) {
    keys.push_back(KeyNamed(std::string(name.data(), name.size()) + "/" + std::to_string(i)));
  }
  return keys;
}

// A small valid spec whose blocks have layers * block_tokens * 64 bytes.
inline CacheSpec SmallSpec(uint32_t layers = 2, uint32_t block_tokens = 4) {
  CacheSpec spec;
  spec.model = "test-model";
  spec.attention = AttentionKind::kGqa;
  spec.dtype = DataType::kBf16;
  spec.layers = layers;
  spec.kv_heads = 1;
  spec.head_dim = 16;
  spec.block_tokens = block_tokens;
  return spec;
}

}  // namespace reprise::testing
