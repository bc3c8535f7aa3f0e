// vLLM's own block keys, scheme `sha256_cbor`: the only one of its schemes that is a cryptographic
// digest and that another language can reproduce. A key is the SHA-256 of the canonical CBOR of
// [parent or root, [tokens...], extra keys or null], and the root is the SHA-256 of the CBOR of the
// seed's text (vllm/v1/core/kv_cache_utils.py, vllm/utils/hashing.py of vLLM 0.32). The extra keys
// are tagged tuples; of those that vLLM knows, only the first block's ("cache_salt", salt) is made
// here: prompts with a LoRA adapter, images or embeddings have keys that the engine alone computes.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "proto/types/block_key.h"

namespace reprise::client {

// What vLLM hashes for its root when PYTHONHASHSEED is not set.
inline constexpr char kVllmDefaultSeed[] = "vllm-none-hash";

struct VllmKeyContext {
  std::string seed = kVllmDefaultSeed;    // the text of PYTHONHASHSEED
  std::optional<std::string> cache_salt;  // of the request; "" is none, as for vLLM
};

// The parent of the first block (vLLM's NONE_HASH).
BlockKey VllmRootKey(absl::string_view seed);

// One key per full block of `tokens`. REQUIRES: block_tokens > 0.
std::vector<BlockKey> VllmKeys(std::span<const uint32_t> tokens, uint32_t block_tokens,
                               const VllmKeyContext& context = {});

}  // namespace reprise::client
