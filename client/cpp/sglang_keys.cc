#include "client/cpp/sglang_keys.h"

#include "absl/strings/string_view.h"
#include "proto/types/sha256.h"
#include "proto/types/status_macros.h"

namespace reprise::client {
namespace {

constexpr absl::string_view kDomain = "sglang-cache-namespace-v1";

void PutLittleEndian(uint64_t value, int bytes, std::vector<uint8_t>& out) {
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<uint8_t>(value >> (8 * i)));
}

// Whether there is one, its length and its bytes: no two pairs of parts have one encoding.
void PutPart(absl::string_view text, std::vector<uint8_t>& out) {
  out.push_back(text.empty() ? 0 : 1);
  if (text.empty()) return;
  PutLittleEndian(text.size(), 8, out);
  out.insert(out.end(), text.begin(), text.end());
}

}  // namespace

std::optional<BlockKey> SglangRootKey(const SglangKeyContext& context) {
  if (context.extra_key.empty() && context.cache_salt.empty()) return std::nullopt;
  std::vector<uint8_t> input(kDomain.begin(), kDomain.end());
  PutPart(context.extra_key, input);
  PutPart(context.cache_salt, input);
  BlockKey root;
  Sha256().Hash(input, root.bytes);
  return root;
}

std::vector<BlockKey> SglangKeys(std::span<const uint32_t> tokens, uint32_t page_tokens,
                                 const SglangKeyContext& context) {
  REPRISE_CHECK(page_tokens > 0);
  thread_local Sha256 sha256;
  std::vector<BlockKey> keys(tokens.size() / page_tokens);
  std::optional<BlockKey> parent = SglangRootKey(context);
  std::vector<uint8_t> input;
  for (size_t i = 0; i < keys.size(); ++i) {
    input.clear();
    if (parent.has_value()) input.assign(parent->bytes.begin(), parent->bytes.end());
    for (uint32_t token : tokens.subspan(i * page_tokens, page_tokens)) {
      PutLittleEndian(token, sizeof(token), input);
    }
    sha256.Hash(input, keys[i].bytes);
    parent = keys[i];
  }
  return keys;
}

}  // namespace reprise::client
