// Turns a prompt's tokens into block keys: a SHA-256 chain, so that a key stands for its block and
// for every block before it. Full blocks only; the rest of the prompt has no key.
//
// The scheme `reprise-sha256`. The key of a block is the SHA-256 of
//     "reprise" | kind (1 byte: 'r' first block, 'c' chained)
//     | tokens u32 | extra bytes u32 | salt bytes u32
//     | parent key (32 bytes, zeros in the first block) | tokens (u32 each) | extra | salt
// with every number little-endian. Lengths stand before contents and the kind before all, so that
// two different inputs never have one encoding: a LoRA name and a salt of the same text are
// different keys. `extra` (LoRA name, multimodal hashes) is part of every block, `salt` of the
// first one, and through the chain of all. A block of 16 tokens without extra is 116 bytes: two
// SHA-256 compressions, padding included.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "proto/types/block_key.h"

namespace reprise::client {

inline constexpr char kRepriseKeyScheme[] = "reprise-sha256";

struct KeyContext {
  std::optional<BlockKey>
      parent;  // continue after this key; `salt` is in it already and is not used again
  std::span<const uint8_t> salt;   // separates who must not share; empty: none
  std::span<const uint8_t> extra;  // separates what the tokens do not say; empty: none
};

// One key per full block of `tokens`. REQUIRES: block_tokens > 0.
std::vector<BlockKey> PrefixKeys(std::span<const uint32_t> tokens, uint32_t block_tokens,
                                 const KeyContext& context = {});

// The same into memory of the caller's. REQUIRES: keys.size() == tokens.size() / block_tokens.
void PrefixKeysInto(std::span<const uint32_t> tokens, uint32_t block_tokens,
                    const KeyContext& context, std::span<BlockKey> keys);

// What is hashed for one block: for the tests of injectivity.
std::vector<uint8_t> EncodeKeyInput(std::span<const uint32_t> block, const KeyContext& context);

}  // namespace reprise::client
