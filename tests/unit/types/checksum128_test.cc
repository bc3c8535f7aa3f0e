#include "proto/types/checksum128.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/types/refusal.h"

namespace reprise {
namespace {

TEST(Checksum128, PackedChecksumsUnpackToThemselves) {
  std::vector<Checksum128> checksums(5);
  for (uint8_t i = 0; i < 5; ++i) checksums[i].bytes.fill(i);
  EXPECT_EQ(UnpackChecksums(PackChecksums(checksums), "checksums").value(), checksums);
  EXPECT_TRUE(UnpackChecksums("", "checksums").value().empty());
}

TEST(Checksum128, AWrongLengthIsRefusedByItsField) {
  for (size_t length : {1, 15, 17}) {
    const absl::Status status =
        UnpackChecksums(std::string(length, 'x'), "request.checksums").status();
    EXPECT_EQ(RefusalReason(status), "CHECKSUMS_LENGTH");
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("request.checksums"));
  }
}

TEST(Checksum128, HexShowsTheBytesInOrder) {
  Checksum128 checksum;
  checksum.bytes[0] = 0xab;
  checksum.bytes[15] = 0x01;
  EXPECT_EQ(ToHex(checksum), "ab000000000000000000000000000001");
}

}  // namespace
}  // namespace reprise
