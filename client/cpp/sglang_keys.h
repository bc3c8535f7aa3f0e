// SGLang's own page hashes, which are the block keys of its servers. A key is the SHA-256 of the
// parent's 32 bytes, where there is one, and the page's token ids as little-endian words of 32
// bits; the first page's parent is a digest of the request's extra_key and cache_salt where it has
// one (sglang/srt/mem_cache/utils.py and cpp_utils/hash_binding.cpp of SGLang 0.5.23). Token ids of
// more than 32 bits and the pairs of speculative models (EAGLE) have hashes that the engine alone
// makes.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "proto/types/block_key.h"

namespace reprise::client {

// The cache spec's key_scheme of SGLang's servers.
inline constexpr char kSglangKeyScheme[] = "sglang sha256";

// Of the request; "" is none, as for SGLang. A LoRA adapter's id is part of extra_key.
struct SglangKeyContext {
  std::string extra_key;
  std::string cache_salt;
};

// The parent of the first page; none where the context is empty.
std::optional<BlockKey> SglangRootKey(const SglangKeyContext& context);

// One key per full page of `tokens`. REQUIRES: page_tokens > 0.
std::vector<BlockKey> SglangKeys(std::span<const uint32_t> tokens, uint32_t page_tokens,
                                 const SglangKeyContext& context = {});

}  // namespace reprise::client
