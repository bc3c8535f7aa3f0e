#include "client/cpp/vllm_keys.h"

#include "proto/types/sha256.h"
#include "proto/types/status_macros.h"

namespace reprise::client {
namespace {

// Major types of CBOR (RFC 8949, section 3.1), and the simple value null.
enum class Major : uint8_t { kUnsigned = 0, kBytes = 2, kText = 3, kArray = 4 };
constexpr uint8_t kNull = 0xf6;

// A head in its shortest form, as canonical CBOR wants it.
void PutHead(Major major, uint64_t value, std::vector<uint8_t>& out) {
  const uint8_t type = static_cast<uint8_t>(static_cast<uint8_t>(major) << 5);
  int bytes = 0;
  if (value < 24) {
    out.push_back(type | static_cast<uint8_t>(value));
    return;
  } else if (value <= 0xff) {
    out.push_back(type | 24);
    bytes = 1;
  } else if (value <= 0xffff) {
    out.push_back(type | 25);
    bytes = 2;
  } else if (value <= 0xffff'ffff) {
    out.push_back(type | 26);
    bytes = 4;
  } else {
    out.push_back(type | 27);
    bytes = 8;
  }
  for (int shift = (bytes - 1) * 8; shift >= 0; shift -= 8) {
    out.push_back(static_cast<uint8_t>(value >> shift));
  }
}

void PutText(absl::string_view text, std::vector<uint8_t>& out) {
  PutHead(Major::kText, text.size(), out);
  out.insert(out.end(), text.begin(), text.end());
}

}  // namespace

BlockKey VllmRootKey(absl::string_view seed) {
  std::vector<uint8_t> cbor;
  PutText(seed, cbor);
  BlockKey root;
  Sha256().Hash(cbor, root.bytes);
  return root;
}

std::vector<BlockKey> VllmKeys(std::span<const uint32_t> tokens, uint32_t block_tokens,
                               const VllmKeyContext& context) {
  REPRISE_CHECK(block_tokens > 0);
  thread_local Sha256 sha256;
  std::vector<BlockKey> keys(tokens.size() / block_tokens);
  BlockKey parent = VllmRootKey(context.seed);
  std::vector<uint8_t> cbor;
  for (size_t i = 0; i < keys.size(); ++i) {
    cbor.clear();
    PutHead(Major::kArray, 3, cbor);
    PutHead(Major::kBytes, kDigestBytes, cbor);
    cbor.insert(cbor.end(), parent.bytes.begin(), parent.bytes.end());
    PutHead(Major::kArray, block_tokens, cbor);
    for (uint32_t token : tokens.subspan(i * block_tokens, block_tokens)) {
      PutHead(Major::kUnsigned, token, cbor);
    }
    if (i == 0 && !context.cache_salt.value_or("").empty()) {
      PutHead(Major::kArray, 1, cbor);  // one extra key, a tuple of its tag and its value
      PutHead(Major::kArray, 2, cbor);
      PutText("cache_salt", cbor);
      PutText(*context.cache_salt, cbor);
    } else {
      cbor.push_back(kNull);
    }
    sha256.Hash(cbor, keys[i].bytes);
    parent = keys[i];
  }
  return keys;
}

}  // namespace reprise::client
