#include "proto/types/sha256.h"

#include <gtest/gtest.h>
#include <openssl/sha.h>
#include <rapidcheck.h>

#include <string>

namespace reprise {
namespace {

std::string Hex(Sha256& sha, const std::string& input) {
  BlockKey digest;
  sha.Hash({reinterpret_cast<const uint8_t*>(input.data()), input.size()}, digest.bytes);
  return ToHex(digest);
}

// FIPS 180-4 examples.
TEST(Sha256, TheStandardsVectorsHold) {
  Sha256 sha;
  EXPECT_EQ(Hex(sha, ""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Hex(sha, "abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Hex(sha, "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST(Sha256, AContextUsedAgainGivesWhatAFreshOneDoes) {
  Sha256 sha;
  EXPECT_TRUE(rc::check("against one-shot SHA-256", [&sha](const std::string& input) {
    BlockKey expected;
    SHA256(reinterpret_cast<const uint8_t*>(input.data()), input.size(), expected.bytes.data());
    RC_ASSERT(Hex(sha, input) == ToHex(expected));
  }));
}

}  // namespace
}  // namespace reprise
