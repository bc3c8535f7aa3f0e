#include "proto/types/block_key.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "absl/strings/str_cat.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"

namespace reprise {
namespace {

using ::testing::HasSubstr;

BlockKey KeyOf(uint8_t fill) {
  BlockKey key;
  key.bytes.fill(fill);
  return key;
}

TEST(BlockKey, HexGoesBothWays) {
  EXPECT_TRUE(rc::check("hex round trip", [](const std::array<uint8_t, kDigestBytes>& bytes) {
    BlockKey key;
    key.bytes = bytes;
    RC_ASSERT(BlockKeyFromHex(ToHex(key)).value() == key);
  }));
  EXPECT_EQ(BlockKeyFromHex(std::string(64, 'A')).value(), KeyOf(0xaa));
}

TEST(BlockKey, WhatIsNotSixtyFourHexDigitsIsRefused) {
  for (const std::string& hex :
       {std::string(), std::string(63, '0'), std::string(65, '0'), std::string(62, '0') + "0g",
        std::string(64, ' '), std::string(64, '\0')}) {
    EXPECT_EQ(RefusalReason(BlockKeyFromHex(hex).status()), "HEX_DIGEST");
    EXPECT_EQ(RefusalReason(FingerprintFromHex(hex).status()), "HEX_DIGEST");
  }
}

TEST(BlockKey, PackedKeysUnpackToThemselves) {
  std::vector<BlockKey> keys;
  for (int i = 0; i < 100; ++i) keys.push_back(KeyOf(static_cast<uint8_t>(i)));
  const std::string packed = PackKeys(keys);
  EXPECT_EQ(packed.size(), 100 * kDigestBytes);
  EXPECT_EQ(UnpackKeys(packed, "keys").value(), keys);
  EXPECT_TRUE(UnpackKeys("", "keys").value().empty());
}

TEST(BlockKey, KeysOfAWrongLengthAreRefusedByTheirField) {
  for (size_t length : {1, 31, 33, 63, 65}) {
    const absl::Status status = UnpackKeys(std::string(length, 'x'), "request.keys").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(RefusalReason(status), "KEYS_LENGTH");
    EXPECT_THAT(std::string(status.message()), HasSubstr("request.keys"));
    EXPECT_THAT(std::string(status.message()), HasSubstr(absl::StrCat(length)));
  }
}

TEST(BlockKey, AKeyThatOccursTwiceIsRefusedByItsPlace) {
  const absl::Status status =
      UnpackKeys(PackKeys({{KeyOf(1), KeyOf(2), KeyOf(1)}}), "keys").status();
  EXPECT_EQ(RefusalReason(status), "KEYS_DUPLICATE");
  EXPECT_THAT(std::string(status.message()), HasSubstr("keys[2]"));
}

TEST(BlockKey, MoreKeysThanAPromptHasAreRefused) {
  std::vector<BlockKey> keys(limits::kPromptBlocksMax + 1);
  for (size_t i = 0; i < keys.size(); ++i) std::memcpy(keys[i].bytes.data(), &i, sizeof(i));
  EXPECT_EQ(RefusalReason(UnpackKeys(PackKeys(keys), "keys").status()), "KEYS_TOO_MANY");
  keys.pop_back();
  EXPECT_TRUE(UnpackKeys(PackKeys(keys), "keys").ok());
}

}  // namespace
}  // namespace reprise
