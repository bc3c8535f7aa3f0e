// Packed keys are unpacked whole or refused; what is accepted packs to the same bytes.

#include <cstdint>

#include "proto/types/block_key.h"
#include "proto/types/checksum128.h"
#include "proto/types/status_macros.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view packed(reinterpret_cast<const char*>(data), size);
  if (const auto keys = reprise::UnpackKeys(packed, "keys"); keys.ok()) {
    REPRISE_CHECK(reprise::PackKeys(*keys) == packed);
  }
  if (const auto checksums = reprise::UnpackChecksums(packed, "checksums"); checksums.ok()) {
    REPRISE_CHECK(reprise::PackChecksums(*checksums) == packed);
  }
  if (const auto key = reprise::BlockKeyFromHex(packed); key.ok()) {
    REPRISE_CHECK(ToHex(*key).size() == 2 * reprise::kDigestBytes);
  }
  return 0;
}
