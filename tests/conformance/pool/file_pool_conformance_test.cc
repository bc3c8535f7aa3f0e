#include "service/pool/file_pool.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <filesystem>

#include "proto/types/refusal.h"
#include "tests/conformance/pool/kept_test_file.h"
#include "tests/conformance/pool/pool_conformance.h"
#include "tests/support/nameless_file.h"

namespace reprise::shard {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kCapacity = 6 << 20;

std::string Folder() {
  return std::filesystem::temp_directory_path().string();
}

template <DiskCipher kCipher>
struct FileTraits {
  static std::unique_ptr<Pool> Make() { return MakeIn(Folder()); }
  static std::unique_ptr<Pool> MakeIn(const std::string& folder) {
    return MakeOf({.folder = folder, .capacity_bytes = kCapacity, .cipher = kCipher});
  }
  static std::unique_ptr<Pool> MakeOf(const FilePoolOptions& options) {
    auto pool = FilePool::Create(options).value();
    current = pool.get();
    return pool;
  }
  static void Put(uint8_t* to, std::span<const uint8_t> bytes) {
    ASSERT_TRUE(current->CopyFromHost(bytes, to).ok());
  }
  static std::vector<uint8_t> Get(const uint8_t* from, size_t bytes) {
    std::vector<uint8_t> got(bytes);
    EXPECT_TRUE(current->CopyToHost(from, got).ok());
    return got;
  }
  static inline Pool* current = nullptr;  // of the test that runs
};

// A filesystem (tmpfs) that cannot zero a range in its place.
template <DiskCipher kCipher>
struct TmpfsTraits : FileTraits<kCipher> {
  static std::unique_ptr<Pool> Make() {
    constexpr char kTmpfs[] = "/dev/shm";
    return std::filesystem::is_directory(kTmpfs) ? FileTraits<kCipher>::MakeIn(kTmpfs) : nullptr;
  }
};

enum class Earlier { kNothing, kNoise };

// A file of somebody else's, new, or with the bytes of an earlier process in all of it.
template <DiskCipher kCipher, Earlier kEarlier>
struct KeptTraits : FileTraits<kCipher> {
  static std::unique_ptr<Pool> Make() {
    const reprise::testing::KeptTestFile file;  // of which the pool has its own descriptor
    if (kEarlier == Earlier::kNoise) file.FillWithNoise(kCapacity);
    return FileTraits<kCipher>::MakeOf(file.Options(kCapacity, kCipher));
  }
};

INSTANTIATE_TYPED_TEST_SUITE_P(File, PoolConformance, FileTraits<DiskCipher::kAes256>);
INSTANTIATE_TYPED_TEST_SUITE_P(FileAsItIs, PoolConformance, FileTraits<DiskCipher::kNone>);
INSTANTIATE_TYPED_TEST_SUITE_P(Tmpfs, PoolConformance, TmpfsTraits<DiskCipher::kAes256>);
INSTANTIATE_TYPED_TEST_SUITE_P(TmpfsAsItIs, PoolConformance, TmpfsTraits<DiskCipher::kNone>);

using NewKept = KeptTraits<DiskCipher::kAes256, Earlier::kNothing>;
using NewKeptAsItIs = KeptTraits<DiskCipher::kNone, Earlier::kNothing>;
using OldKept = KeptTraits<DiskCipher::kAes256, Earlier::kNoise>;
using OldKeptAsItIs = KeptTraits<DiskCipher::kNone, Earlier::kNoise>;
INSTANTIATE_TYPED_TEST_SUITE_P(NewKept, PoolConformance, NewKept);
INSTANTIATE_TYPED_TEST_SUITE_P(NewKeptAsItIs, PoolConformance, NewKeptAsItIs);
INSTANTIATE_TYPED_TEST_SUITE_P(OldKept, PoolConformance, OldKept);
INSTANTIATE_TYPED_TEST_SUITE_P(OldKeptAsItIs, PoolConformance, OldKeptAsItIs);

std::string ReasonOf(const absl::Status& status) {
  return absl::StrCat(absl::StatusCodeToString(status.code()), " ", RefusalReason(status));
}

TEST(FilePoolTest, ItsFileHasNoNameAndAllOfItsRoom) {
  const auto pool = *FilePool::Create({.folder = Folder(), .capacity_bytes = kCapacity});
  const int fd = reprise::testing::NamelessFileIn(Folder());
  ASSERT_GE(fd, 0);
  struct stat file {};
  ASSERT_EQ(::fstat(fd, &file), 0);
  EXPECT_EQ(file.st_nlink, 0u);
  EXPECT_EQ(static_cast<uint64_t>(file.st_size), pool->capacity_bytes());
  EXPECT_GE(static_cast<uint64_t>(file.st_blocks) * 512, pool->capacity_bytes());
}

TEST(FilePoolTest, AWipedExtentKeepsItsRoom) {
  const auto pool = *FilePool::Create({.folder = Folder(), .capacity_bytes = kCapacity});
  std::vector<SlotRef> slots;
  while (const auto slot = pool->Allocate(KeySpaceId(1), pool->extent_bytes()))
    slots.push_back(*slot);
  for (const SlotRef slot : slots) pool->Free(slot);
  ASSERT_TRUE(pool->Allocate(KeySpaceId(2), pool->extent_bytes()).has_value());
  struct stat file {};
  ASSERT_EQ(::fstat(reprise::testing::NamelessFileIn(Folder()), &file), 0);
  EXPECT_GE(static_cast<uint64_t>(file.st_blocks) * 512, pool->capacity_bytes());
}

TEST(FilePoolTest, WhatCannotBeHadIsSaidAtTheStart) {
  EXPECT_EQ(ReasonOf(FilePool::Create({.folder = Folder(), .capacity_bytes = 0}).status()),
            "INVALID_ARGUMENT NVME_SIZE");
  const absl::Status nowhere =
      FilePool::Create({.folder = "/nonexistent/folder", .capacity_bytes = kCapacity}).status();
  EXPECT_EQ(ReasonOf(nowhere), "INVALID_ARGUMENT NVME_FOLDER");
  EXPECT_THAT(nowhere.message(), HasSubstr("/nonexistent/folder"));
  const absl::Status too_much =
      FilePool::Create({.folder = Folder(), .capacity_bytes = 1ull << 50}).status();
  EXPECT_EQ(ReasonOf(too_much), "RESOURCE_EXHAUSTED NVME_SIZE");
  EXPECT_THAT(too_much.message(), HasSubstr("--nvme"));
  EXPECT_EQ(reprise::testing::NamelessFileIn(Folder()), -1) << "nothing is left of those";
}

TEST(FilePoolTest, ADiskThatFailsOnceIsLostForGood) {
  const auto pool = *FilePool::Create({.folder = Folder(), .capacity_bytes = kCapacity});
  const auto slot = pool->Allocate(KeySpaceId(1), 4096);
  std::vector<uint8_t> bytes(4096, 7);
  ASSERT_TRUE(pool->CopyFromHost(bytes, pool->Address(*slot)).ok());
  EXPECT_FALSE(pool->lost());
  ASSERT_TRUE(reprise::testing::EmptyNamelessFileIn(Folder()));
  const absl::Status failed = pool->CopyToHost(pool->Address(*slot), bytes);
  EXPECT_EQ(ReasonOf(failed), "INTERNAL SHARD_DISK_LOST");
  EXPECT_TRUE(pool->lost());
  EXPECT_FALSE(pool->Fits(4096));
}

}  // namespace
}  // namespace reprise::shard
