// Records as a shard keeps them, files in a folder of their own, and what batches come to, reckoned
// as plainly as possible.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "proto/types/cache_spec.h"
#include "service/journal/disk_key.h"
#include "service/journal/kept_records.h"
#include "tests/support/block_content.h"

namespace reprise::shard {

// What must not be legible in an enciphered file.
inline constexpr char kTenantCanary[] = "spiffe://canary/tenant";
inline constexpr char kSessionCanary[] = "session-canary";
inline constexpr char kClaimCanary[] = "claim-canary";
inline constexpr char kModelCanary[] = "model-canary";

class TestFolder {
 public:
  TestFolder() {
    std::string folder = (std::filesystem::temp_directory_path() / "journal-XXXXXX").string();
    path_ = ::mkdtemp(folder.data());
  }
  ~TestFolder() { std::filesystem::remove_all(path_); }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return absl::StrCat(path_, "/", name); }
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
  }

 private:
  std::string path_;
};

inline std::string ReadBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline void WriteBytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

inline std::unique_ptr<DiskKey> KeyOf(uint8_t seed) {
  std::vector<uint8_t> secret(32, seed);
  return *DiskKey::Of(secret);
}

inline BlockKey SampleKey(uint64_t number) {
  BlockKey key;
  for (size_t i = 0; i < key.bytes.size(); ++i) {
    key.bytes[i] = static_cast<uint8_t>(testing::ContentWord(number, i / 8) >> (8 * (i % 8)));
  }
  return key;
}

inline KeptSpace SampleSpace(uint32_t number) {
  KeptSpace space;
  space.number = number;
  space.tenant.name = absl::StrCat(kTenantCanary, number);
  space.spec = testing::SmallSpec();
  space.spec.model = absl::StrCat(kModelCanary, number);
  space.fingerprint = FingerprintOf(space.spec);
  space.shape = {.block_bytes = LayoutOf(space.spec).block_bytes,
                 .section_bytes = LayoutOf(space.spec).layer_bytes};
  return space;
}

inline KeptBlock SampleBlock(uint32_t space, SlotRef slot, uint64_t number) {
  KeptBlock block;
  block.space = space;
  block.slot = slot;
  block.key = SampleKey(number);
  if (number % 4 != 0) block.parent = SampleKey(number - 1);
  const BlockKey checksum = SampleKey(number + 1'000'000'000);
  std::copy_n(checksum.bytes.begin(), block.checksum.bytes.size(), block.checksum.bytes.begin());
  block.depth = static_cast<uint32_t>(number % 4);
  block.token_position = block.depth * 4;
  if (number % 3 != 0) block.session_id = absl::StrCat(kSessionCanary, number / 8);
  for (uint32_t i = 0; i < number % 5; ++i) {
    block.token_ids.push_back(static_cast<uint32_t>(100'000 + 7 * number + i));
  }
  return block;
}

inline KeptClaim SampleClaim(uint32_t space, uint64_t number) {
  KeptClaim claim;
  claim.space = space;
  claim.name = absl::StrCat(kClaimCanary, number);
  claim.rank = static_cast<uint8_t>(number);
  claim.ends = absl::FromUnixMillis(1'900'000'000'123 + static_cast<int64_t>(number));
  if (number % 2 == 0) claim.rests = SampleKey(number);
  for (uint64_t i = 0; i < number % 3; ++i) claim.ahead.push_back(SampleKey(number + 1 + i));
  return claim;
}

// A few batches with some of everything; the last one ends it.
inline std::vector<KeptBatch> SampleBatches() {
  std::vector<KeptBatch> batches(5);
  batches[0].spaces = {SampleSpace(1), SampleSpace(7)};
  for (uint32_t i = 0; i < 6; ++i) {
    batches[0].blocks.push_back(SampleBlock(i % 2 == 0 ? 1 : 7, {i % 2, i / 2}, i + 1));
  }
  batches[1].gone = {{0, 0}, {1, 1}};
  batches[1].claims = {SampleClaim(1, 2), SampleClaim(7, 255)};
  batches[2].spaces = {SampleSpace(9)};
  batches[2].blocks = {SampleBlock(9, {1, 0}, 20), SampleBlock(1, {0, 0}, 21)};
  batches[3].blocks = {SampleBlock(1, {5, 5}, 30)};
  batches[3].gone = {{5, 5}, {0, 1}, {9, 9}};
  batches[3].claims = {SampleClaim(9, 4)};
  batches[4].closed = true;
  return batches;
}

inline KeptContents ComeTo(std::span<const KeptBatch> batches) {
  KeptContents contents;
  const auto drop = [&](SlotRef slot) {
    std::erase_if(contents.blocks, [&](const KeptBlock& block) { return block.slot == slot; });
  };
  for (const KeptBatch& batch : batches) {
    for (const KeptSpace& space : batch.spaces) contents.spaces.push_back(space);
    for (const KeptBlock& block : batch.blocks) {
      drop(block.slot);
      contents.blocks.push_back(block);
    }
    for (const SlotRef slot : batch.gone) drop(slot);
    for (const KeptClaim& claim : batch.claims) contents.claims.push_back(claim);
    contents.closed = batch.closed;
  }
  return contents;
}

// But for `torn_bytes`.
inline void ExpectSame(const KeptContents& found, const KeptContents& expected) {
  EXPECT_EQ(found.spaces == expected.spaces, true);
  EXPECT_EQ(found.blocks == expected.blocks, true)
      << found.blocks.size() << " blocks, not " << expected.blocks.size();
  EXPECT_EQ(found.claims == expected.claims, true);
  EXPECT_EQ(found.closed, expected.closed);
  EXPECT_EQ(found.skipped, expected.skipped);
}

}  // namespace reprise::shard
