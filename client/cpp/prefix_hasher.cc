#include "client/cpp/prefix_hasher.h"

#include <bit>
#include <cstring>

#include "proto/types/sha256.h"
#include "proto/types/status_macros.h"

namespace reprise::client {
namespace {

static_assert(std::endian::native == std::endian::little,
              "tokens and lengths are copied as they lie in memory");

constexpr char kDomain[] = "reprise";
constexpr size_t kDomainBytes = sizeof(kDomain) - 1;
constexpr size_t kKindAt = kDomainBytes;
constexpr size_t kTokenCountAt = kKindAt + 1;
constexpr size_t kExtraBytesAt = kTokenCountAt + sizeof(uint32_t);
constexpr size_t kSaltBytesAt = kExtraBytesAt + sizeof(uint32_t);
constexpr size_t kParentAt = kSaltBytesAt + sizeof(uint32_t);
constexpr size_t kTokensAt = kParentAt + kDigestBytes;
constexpr uint8_t kFirstBlock = 'r';
constexpr uint8_t kChainedBlock = 'c';

void PutU32(uint8_t* at, size_t value) {
  const uint32_t narrow = static_cast<uint32_t>(value);
  std::memcpy(at, &narrow, sizeof(narrow));
}

// The input of one block's digest, laid out once per prompt: from block to block only parent and
// tokens change.
class KeyInput {
 public:
  KeyInput(uint32_t block_tokens, const KeyContext& context)
      : token_bytes_(size_t{block_tokens} * sizeof(uint32_t)),
        buffer_(kTokensAt + token_bytes_ + context.extra.size() + context.salt.size()) {
    std::memcpy(buffer_.data(), kDomain, kDomainBytes);
    PutU32(&buffer_[kTokenCountAt], block_tokens);
    PutU32(&buffer_[kExtraBytesAt], context.extra.size());
    uint8_t* extra_at = buffer_.data() + kTokensAt + token_bytes_;
    if (!context.extra.empty()) std::memcpy(extra_at, context.extra.data(), context.extra.size());
    used_ = kTokensAt + token_bytes_ + context.extra.size();
    if (context.parent.has_value()) {
      SetParent(*context.parent);
      return;
    }
    buffer_[kKindAt] = kFirstBlock;
    PutU32(&buffer_[kSaltBytesAt], context.salt.size());
    if (!context.salt.empty()) {
      std::memcpy(buffer_.data() + used_, context.salt.data(), context.salt.size());
    }
    used_ += context.salt.size();
  }

  void SetParent(const BlockKey& parent) {
    buffer_[kKindAt] = kChainedBlock;
    PutU32(&buffer_[kSaltBytesAt], 0);
    std::memcpy(&buffer_[kParentAt], parent.bytes.data(), kDigestBytes);
  }
  void DropSalt(const KeyContext& context) {
    used_ = kTokensAt + token_bytes_ + context.extra.size();
  }
  void SetTokens(const uint32_t* tokens) { std::memcpy(&buffer_[kTokensAt], tokens, token_bytes_); }
  std::span<const uint8_t> bytes() const { return {buffer_.data(), used_}; }

 private:
  size_t token_bytes_;
  std::vector<uint8_t> buffer_;
  size_t used_ = 0;
};

}  // namespace

void PrefixKeysInto(std::span<const uint32_t> tokens, uint32_t block_tokens,
                    const KeyContext& context, std::span<BlockKey> keys) {
  REPRISE_CHECK(block_tokens > 0 && keys.size() == tokens.size() / block_tokens);
  thread_local Sha256 sha256;
  KeyInput input(block_tokens, context);
  for (size_t i = 0; i < keys.size(); ++i) {
    if (i > 0) input.SetParent(keys[i - 1]);
    if (i == 1) input.DropSalt(context);
    input.SetTokens(tokens.data() + i * block_tokens);
    sha256.Hash(input.bytes(), keys[i].bytes);
  }
}

std::vector<BlockKey> PrefixKeys(std::span<const uint32_t> tokens, uint32_t block_tokens,
                                 const KeyContext& context) {
  REPRISE_CHECK(block_tokens > 0);
  std::vector<BlockKey> keys(tokens.size() / block_tokens);
  PrefixKeysInto(tokens, block_tokens, context, keys);
  return keys;
}

std::vector<uint8_t> EncodeKeyInput(std::span<const uint32_t> block, const KeyContext& context) {
  KeyInput input(static_cast<uint32_t>(block.size()), context);
  input.SetTokens(block.data());
  return {input.bytes().begin(), input.bytes().end()};
}

}  // namespace reprise::client
