#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "kernels/checksum/checksum.h"
#include "kernels/checksum/checksum_isa.h"

namespace reprise::kernels {
namespace {

using Digest = std::array<uint8_t, kChecksumDigestBytes>;

std::string Hex(const Digest& digest) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (uint8_t byte : digest) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

// The bytes that checksum_vectors.py documents.
std::vector<uint8_t> Pattern(uint64_t count) {
  std::vector<uint8_t> bytes(count);
  for (uint64_t i = 0; i < count; ++i) {
    bytes[i] = static_cast<uint8_t>(static_cast<uint32_t>((i + 1) * 2654435761u) >> 16);
  }
  return bytes;
}

Digest Block(const std::vector<uint8_t>& bytes, uint64_t section_bytes) {
  Digest digest;
  ChecksumBlock(bytes.data(), bytes.size(), section_bytes, digest.data());
  return digest;
}

Digest Section(const uint8_t* bytes, uint64_t count) {
  Digest digest;
  ChecksumSection(bytes, count, digest.data());
  return digest;
}

TEST(ChecksumCpuTest, AgreesWithThePublishedVectors) {
  std::ifstream file(REPRISE_CHECKSUM_VECTORS);
  ASSERT_TRUE(file.good()) << REPRISE_CHECKSUM_VECTORS;
  const nlohmann::json document = nlohmann::json::parse(file);
  ASSERT_EQ(document["chunk_bytes"].get<uint64_t>(), kChecksumChunkBytes);
  ASSERT_GE(document["vectors"].size(), 14u);
  for (const auto& vector : document["vectors"]) {
    SCOPED_TRACE(vector["name"].get<std::string>());
    const std::vector<uint8_t> bytes = Pattern(vector["block_bytes"].get<uint64_t>());
    const uint64_t section_bytes = vector["section_bytes"].get<uint64_t>();
    const uint64_t first = std::min<uint64_t>(section_bytes, bytes.size());
    const uint64_t last_at = (bytes.size() - 1) / section_bytes * section_bytes;
    EXPECT_EQ(Hex(Section(bytes.data(), first)), vector["first_section"]);
    EXPECT_EQ(Hex(Section(bytes.data() + last_at, bytes.size() - last_at)), vector["last_section"]);
    EXPECT_EQ(Hex(Block(bytes, section_bytes)), vector["checksum"]);
  }
}

TEST(ChecksumCpuTest, BlockChecksumFollowsFromSectionDigestsAlone) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 100; ++round) {
    const uint64_t section_bytes = 1 + random() % 70'000;
    std::vector<uint8_t> bytes(1 + random() % 300'000);
    std::generate(bytes.begin(), bytes.end(), std::ref(random));
    std::vector<uint8_t> digests;
    for (uint64_t at = 0; at < bytes.size(); at += section_bytes) {
      const Digest digest = Section(bytes.data() + at, std::min(section_bytes, bytes.size() - at));
      digests.insert(digests.end(), digest.begin(), digest.end());
    }
    Digest joined;
    ChecksumFromSections(digests.data(), digests.size() / kChecksumDigestBytes, bytes.size(),
                         joined.data());
    EXPECT_EQ(joined, Block(bytes, section_bytes))
        << "section_bytes " << section_bytes << ", block_bytes " << bytes.size();
  }
}

TEST(ChecksumCpuTest, EveryInstructionSetGivesTheSameDigest) {
  std::mt19937_64 random(13);
  ASSERT_NE(UsableChecksumIsas()[0], nullptr);
  for (int round = 0; round < 300; ++round) {
    const uint64_t section_bytes = 1 + random() % (round < 200 ? 1'000 : 100'000);
    std::vector<uint8_t> bytes(1 + random() % (round < 200 ? 5'000 : 400'000));
    std::generate(bytes.begin(), bytes.end(), std::ref(random));
    Digest baseline;
    kChecksumBaseline.block(bytes.data(), bytes.size(), section_bytes, baseline.data());
    for (const ChecksumIsa* const* isa = UsableChecksumIsas(); *isa != nullptr; ++isa) {
      Digest digest;
      (*isa)->block(bytes.data(), bytes.size(), section_bytes, digest.data());
      EXPECT_EQ(digest, baseline) << (*isa)->name << ", section_bytes " << section_bytes
                                  << ", block_bytes " << bytes.size();
    }
  }
}

TEST(ChecksumCpuTest, EveryFlippedBitChangesTheChecksum) {
  std::mt19937_64 random(11);
  std::vector<uint8_t> bytes(5 * 20'000 + 77);
  std::generate(bytes.begin(), bytes.end(), std::ref(random));
  const Digest intact = Block(bytes, 20'000);
  for (int round = 0; round < 500; ++round) {
    const uint64_t at = random() % bytes.size();
    const uint8_t bit = static_cast<uint8_t>(1u << (random() % 8));
    bytes[at] ^= bit;
    EXPECT_NE(Block(bytes, 20'000), intact) << "bit " << int{bit} << " of byte " << at;
    bytes[at] ^= bit;
  }
  EXPECT_EQ(Block(bytes, 20'000), intact);
}

TEST(ChecksumCpuTest, SwappedAndTruncatedSectionsChangeTheChecksum) {
  const std::vector<uint8_t> bytes = Pattern(4 * kChecksumChunkBytes);
  const Digest intact = Block(bytes, kChecksumChunkBytes);
  std::vector<uint8_t> swapped = bytes;
  std::swap_ranges(swapped.begin(), swapped.begin() + kChecksumChunkBytes,
                   swapped.begin() + kChecksumChunkBytes);
  EXPECT_NE(Block(swapped, kChecksumChunkBytes), intact);
  std::vector<uint8_t> shorter(bytes.begin(), bytes.end() - kChecksumChunkBytes);
  EXPECT_NE(Block(shorter, kChecksumChunkBytes), intact);
  std::vector<uint8_t> zeros(2 * kChecksumChunkBytes);
  std::vector<uint8_t> fewer_zeros(2 * kChecksumChunkBytes - 1);
  EXPECT_NE(Block(zeros, kChecksumChunkBytes), Block(fewer_zeros, kChecksumChunkBytes));
}

TEST(ChecksumCpuTest, AlignmentOfTheBytesDoesNotMatter) {
  const std::vector<uint8_t> bytes = Pattern(100'000);
  const Digest aligned = Block(bytes, 30'000);
  for (size_t shift = 1; shift < 64; ++shift) {
    std::vector<uint8_t> shifted(bytes.size() + shift);
    std::copy(bytes.begin(), bytes.end(), shifted.begin() + shift);
    Digest digest;
    ChecksumBlock(shifted.data() + shift, bytes.size(), 30'000, digest.data());
    EXPECT_EQ(digest, aligned) << "shift " << shift;
  }
}

}  // namespace
}  // namespace reprise::kernels
