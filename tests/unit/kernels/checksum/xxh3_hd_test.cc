// The code that GPU threads run, run here: against xxHash itself, and composed as the kernels
// compose it.
#define XXH_INLINE_ALL
#include <gtest/gtest.h>
#include <xxhash.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "kernels/checksum/checksum.h"
#include "kernels/checksum/checksum_cuda.h"
#include "kernels/checksum/checksum_geometry.h"
#include "kernels/checksum/checksum_tuning.h"
#include "kernels/checksum/xxh3_hd.h"

namespace reprise::kernels {
namespace {

// What a quad of threads computes, its four threads one after another.
template <uint32_t kLoads>
xxh3::Hash128 HashByQuad(const uint8_t* input, uint64_t bytes) {
  if (bytes <= xxh3::kShortBytesMax) return xxh3::HashShort(input, static_cast<uint32_t>(bytes));
  const auto load = [input](uint64_t at) {
    return xxh3::Pair64{xxh3::Read64(input + at), xxh3::Read64(input + at + 8)};
  };
  uint64_t low = 0;
  uint64_t high = 0;
  for (uint32_t p = 0; p < xxh3::kQuadThreads; ++p) {
    const xxh3::Hash128 terms = xxh3::QuadTerms(xxh3::SumQuad<kLoads>(load, bytes, p), p);
    low += terms.low;
    high += terms.high;
  }
  return xxh3::FinishLong(low, high, bytes);
}

std::vector<uint8_t> RandomBytes(uint64_t bytes, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<uint8_t> result(bytes);
  std::generate(result.begin(), result.end(), std::ref(random));
  return result;
}

void ExpectSameAsXxHash(const uint8_t* input, uint64_t bytes) {
  const XXH128_hash_t expected = XXH3_128bits(input, bytes);
  const xxh3::Hash128 batched = HashByQuad<checksum_tuning::kLoadsInFlight>(input, bytes);
  const xxh3::Hash128 single = HashByQuad<1>(input, bytes);
  ASSERT_EQ(batched.low, expected.low64) << bytes << " bytes";
  ASSERT_EQ(batched.high, expected.high64) << bytes << " bytes";
  ASSERT_EQ(single.low, expected.low64) << bytes << " bytes";
  ASSERT_EQ(single.high, expected.high64) << bytes << " bytes";
}

TEST(Xxh3HdTest, EveryLengthUpToFourRoundsIsXxHash) {
  const std::vector<uint8_t> bytes = RandomBytes(4 * xxh3::kRoundBytes + 70, 3);
  for (uint64_t count = 1; count <= bytes.size(); ++count) ExpectSameAsXxHash(bytes.data(), count);
}

TEST(Xxh3HdTest, ThousandsOfRandomInputsAreXxHash) {
  std::mt19937_64 random(5);
  const std::vector<uint8_t> bytes = RandomBytes(70'000, 6);
  for (int round = 0; round < 5'000; ++round) {
    const uint64_t count = 1 + random() % (round % 2 == 0 ? 300 : 66'000);
    const uint64_t at = random() % (bytes.size() - count);
    ExpectSameAsXxHash(bytes.data() + at, count);
  }
}

TEST(Xxh3HdTest, CanonicalFormIsXxHashs) {
  const std::vector<uint8_t> bytes = RandomBytes(5'000, 8);
  XXH128_canonical_t expected;
  XXH128_canonicalFromHash(&expected, XXH3_128bits(bytes.data(), bytes.size()));
  alignas(8) uint8_t digest[kChecksumDigestBytes];
  xxh3::StoreCanonical(HashByQuad<1>(bytes.data(), bytes.size()), digest);
  EXPECT_EQ(std::memcmp(digest, expected.digest, sizeof(digest)), 0);
}

// The two kernels, one quad after another, over a scratch that starts as rubbish.
void EmulateKernels(const ChecksumGeometry& geometry, const uint8_t* block, uint8_t* digest) {
  std::vector<uint64_t> storage(geometry.block_scratch_bytes / 8, 0xDEADBEEFDEADBEEFull);
  auto* scratch = reinterpret_cast<uint8_t*>(storage.data());
  for (uint64_t index = 0; index < geometry.Chunks(); ++index) {
    const ChunkPlace chunk = PlaceChunk(geometry, index);
    if (!chunk.exists) continue;
    ASSERT_LE(chunk.at + chunk.bytes, geometry.block_bytes);
    ASSERT_LE(chunk.digest + 2 * kChecksumDigestBytes, geometry.JoinScratch());
    xxh3::StoreCanonical(HashByQuad<checksum_tuning::kLoadsInFlight>(block + chunk.at, chunk.bytes),
                         scratch + chunk.digest);
    if (chunk.last_of_section) {
      const uint64_t length = geometry.SectionBytes(chunk.section);
      std::memcpy(scratch + chunk.digest + kChecksumDigestBytes, &length, sizeof(length));
    }
  }
  uint8_t* joined = scratch + geometry.JoinScratch();
  for (uint32_t section = 0; section < geometry.sections; ++section) {
    xxh3::StoreCanonical(HashByQuad<1>(scratch + geometry.SectionScratch(section),
                                       SectionInputBytes(geometry, section)),
                         joined + section * kChecksumDigestBytes);
  }
  const uint64_t digest_bytes = uint64_t{geometry.sections} * kChecksumDigestBytes;
  ASSERT_LE(geometry.JoinScratch() + digest_bytes + 8, geometry.block_scratch_bytes);
  std::memcpy(joined + digest_bytes, &geometry.block_bytes, 8);
  xxh3::StoreCanonical(HashByQuad<1>(joined, digest_bytes + 8), digest);
}

TEST(ChecksumKernelTest, ItsStepsGiveTheCpuChecksum) {
  std::mt19937_64 random(17);
  const std::vector<uint8_t> bytes = RandomBytes(400'000, 18);
  for (int round = 0; round < 500; ++round) {
    const uint64_t block_bytes = 1 + random() % (round % 3 == 0 ? 2'000 : bytes.size() - 1);
    const uint64_t section_bytes = 1 + random() % (round % 5 == 0 ? 500 : 80'000);
    alignas(8) uint8_t actual[kChecksumDigestBytes];
    uint8_t expected[kChecksumDigestBytes];
    EmulateKernels(MakeChecksumGeometry(block_bytes, section_bytes), bytes.data(), actual);
    ChecksumBlock(bytes.data(), block_bytes, section_bytes, expected);
    ASSERT_EQ(std::memcmp(actual, expected, sizeof(actual)), 0)
        << "block_bytes " << block_bytes << ", section_bytes " << section_bytes;
  }
}

TEST(ChecksumKernelTest, RefusesEmptyBlocksAndSkipsEmptyBatches) {
  EXPECT_EQ(ChecksumBlocksOnGpu(ChecksumBatch{}, nullptr) == kGpuOk, true) << "0 blocks";
  EXPECT_NE(ChecksumBlocksOnGpu(ChecksumBatch{.block_count = 1}, nullptr), kGpuOk);
  EXPECT_EQ(ChecksumScratchBytes(3, 1 << 21, 1 << 16), 3u * (32 * 80 + 33 * 16));
}

}  // namespace
}  // namespace reprise::kernels
