// A file pool's file and key that outlive it: what the next pool over them reads, and what it does
// not let anybody read.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <memory>
#include <new>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "service/pool/file_pool.h"
#include "tests/conformance/pool/kept_test_file.h"
#include "tests/support/block_content.h"

namespace reprise::shard {
namespace {

using reprise::testing::KeptTestFile;

constexpr uint64_t kCapacity = 6 << 20;
constexpr uint64_t kBlock = 100'000;
constexpr KeySpaceId kSpace(1), kOther(2);

std::vector<uint8_t> Get(FilePool& pool, SlotRef slot, uint64_t bytes) {
  std::vector<uint8_t> got(bytes);
  EXPECT_TRUE(pool.CopyToHost(pool.Address(slot), got).ok());
  return got;
}

bool AllZeroes(const std::vector<uint8_t>& bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; });
}

bool Holds(FilePool& pool, SlotRef slot, uint64_t seed) {
  return reprise::testing::HasContent(BlockKey(), seed, Get(pool, slot, kBlock));
}

class KeptFilePool : public ::testing::TestWithParam<DiskCipher> {
 protected:
  std::unique_ptr<FilePool> Open(uint64_t capacity_bytes = kCapacity, uint8_t key_number = 1) {
    auto pool = FilePool::Create(file_.Options(capacity_bytes, GetParam(), key_number));
    EXPECT_TRUE(pool.ok()) << pool.status();
    return *std::move(pool);
  }
  // Blocks of kSpace in all of the file, each with its number; the pool is gone then.
  std::vector<SlotRef> FillAll(uint64_t capacity_bytes = kCapacity) {
    const auto pool = Open(capacity_bytes);
    std::vector<SlotRef> slots;
    while (const auto slot = pool->Allocate(kSpace, kBlock)) {
      std::vector<uint8_t> block(kBlock);
      reprise::testing::FillContent(BlockKey(), slots.size(), block);
      EXPECT_TRUE(pool->CopyFromHost(block, pool->Address(*slot)).ok());
      slots.push_back(*slot);
    }
    EXPECT_TRUE(pool->Sync().ok());
    return slots;
  }

  KeptTestFile file_;
};
INSTANTIATE_TEST_SUITE_P(Ciphers, KeptFilePool,
                         ::testing::Values(DiskCipher::kAes256, DiskCipher::kNone),
                         [](const auto& cipher) {
                           return cipher.param == DiskCipher::kNone ? "None" : "Aes256";
                         });

TEST_P(KeptFilePool, TheNextPoolReadsWhatTheLastOneWrote) {
  const std::vector<SlotRef> slots = FillAll();
  const auto pool = Open();
  // Most of an extent is given to others later: what was taken stays.
  const std::vector<SlotRef> taken = {slots[25], slots[3], slots[40]};
  for (SlotRef slot : taken) ASSERT_TRUE(pool->Take(kSpace, kBlock, slot));
  while (const auto slot = pool->Allocate(kSpace, kBlock)) {
    ASSERT_TRUE(pool->CopyFromHost(std::vector<uint8_t>(kBlock, 9), pool->Address(*slot)).ok());
  }
  EXPECT_TRUE(Holds(*pool, slots[25], 25));
  EXPECT_TRUE(Holds(*pool, slots[3], 3));
  EXPECT_TRUE(Holds(*pool, slots[40], 40));
}

TEST_P(KeptFilePool, AnExtentThatWasNotTakenIsZeroesForWhoeverGetsIt) {
  const std::vector<SlotRef> slots = FillAll();
  const auto pool = Open();
  ASSERT_TRUE(pool->Take(kSpace, kBlock, slots[0]));
  const uint64_t whole = pool->extent_bytes();
  uint32_t others = 0;
  while (const auto slot = pool->Allocate(kOther, whole)) {
    EXPECT_NE(slot->extent, slots[0].extent);
    EXPECT_TRUE(AllZeroes(Get(*pool, *slot, whole))) << slot->extent;
    ++others;
  }
  EXPECT_EQ(others, pool->extents() - 1);
  EXPECT_TRUE(Holds(*pool, slots[0], 0));
}

TEST_P(KeptFilePool, ATakenExtentIsWipedWhenItChangesHandsInItsTurn) {
  const std::vector<SlotRef> slots = FillAll();
  const auto pool = Open();
  for (SlotRef slot : slots) ASSERT_TRUE(pool->Take(kSpace, kBlock, slot));
  EXPECT_FALSE(pool->Allocate(kOther, kBlock).has_value());
  for (SlotRef slot : slots) pool->Free(slot);
  const uint64_t whole = pool->extent_bytes();
  for (uint32_t i = 0; i < pool->extents(); ++i) {
    EXPECT_TRUE(AllZeroes(Get(*pool, *pool->Allocate(kOther, whole), whole)));
  }
}

TEST_P(KeptFilePool, AllRoomOfAFileThatWasLeftIsOpenToEverybody) {
  FillAll();
  const auto pool = Open();
  EXPECT_EQ(pool->ExtentsOpenTo(kSpace), pool->extents());
  EXPECT_EQ(pool->used_bytes(), 0u);
}

TEST_P(KeptFilePool, AFileThatGrowsKeepsWhatItHad) {
  const std::vector<SlotRef> slots = FillAll();
  const auto pool = Open(2 * kCapacity);
  EXPECT_EQ(pool->capacity_bytes(), 2 * kCapacity);
  EXPECT_EQ(file_.bytes(), 2 * kCapacity);
  for (SlotRef slot : slots) ASSERT_TRUE(pool->Take(kSpace, kBlock, slot));
  for (size_t i = 0; i < slots.size(); ++i) EXPECT_TRUE(Holds(*pool, slots[i], i)) << i;
  uint32_t more = 0;
  const uint64_t whole = pool->extent_bytes();
  while (const auto slot = pool->Allocate(kOther, whole)) {
    EXPECT_TRUE(AllZeroes(Get(*pool, *slot, whole)));
    ++more;
  }
  EXPECT_EQ(more, pool->extents() / 2);
}

TEST_P(KeptFilePool, AFileThatShrinksKeepsWhatIsInItStill) {
  const std::vector<SlotRef> slots = FillAll(2 * kCapacity);
  const auto pool = Open();
  EXPECT_EQ(pool->capacity_bytes(), kCapacity);
  EXPECT_EQ(file_.bytes(), kCapacity);
  size_t kept = 0;
  for (size_t i = 0; i < slots.size(); ++i) {
    const bool taken = pool->Take(kSpace, kBlock, slots[i]);
    EXPECT_EQ(taken, slots[i].extent < pool->extents()) << i;
    if (!taken) continue;
    EXPECT_TRUE(Holds(*pool, slots[i], i)) << i;
    ++kept;
  }
  EXPECT_EQ(kept, slots.size() / 2);
}

TEST_P(KeptFilePool, AFileThatGetsNoMoreRoomLosesNothing) {
  const std::vector<SlotRef> slots = FillAll();
  const absl::Status refused =
      FilePool::Create(file_.Options(uint64_t{1} << 50, GetParam())).status();
  EXPECT_EQ(RefusalReason(refused), "NVME_SIZE");
  EXPECT_EQ(file_.bytes(), kCapacity);
  const auto pool = Open();
  ASSERT_TRUE(pool->Take(kSpace, kBlock, slots[7]));
  EXPECT_TRUE(Holds(*pool, slots[7], 7));
}

// Whether somebody else could have the file of `fd`.
bool IsLocked(int fd) {
  const int again = ::open(absl::StrCat("/proc/self/fd/", fd).c_str(), O_RDWR | O_CLOEXEC);
  EXPECT_GE(again, 0);
  const bool locked = ::flock(again, LOCK_EX | LOCK_NB) != 0;
  ::close(again);
  return locked;
}

TEST_P(KeptFilePool, ThePoolsEndLeavesTheOwnersLock) {
  ASSERT_FALSE(IsLocked(file_.fd()));
  ASSERT_EQ(::flock(file_.fd(), LOCK_EX | LOCK_NB), 0);
  Open();
  EXPECT_TRUE(IsLocked(file_.fd()));
}

TEST_P(KeptFilePool, TheLockHoldsUntilThePoolsEndToo) {
  const int owners = ::open(absl::StrCat("/proc/self/fd/", file_.fd()).c_str(), O_RDWR);
  ASSERT_EQ(::flock(owners, LOCK_EX | LOCK_NB), 0);
  FilePoolOptions options = file_.Options(kCapacity, GetParam());
  options.kept->fd = owners;
  auto pool = *FilePool::Create(options);
  ::close(owners);
  EXPECT_TRUE(IsLocked(file_.fd()));
  pool.reset();
  EXPECT_FALSE(IsLocked(file_.fd()));
}

TEST(KeptFilePoolTest, AnotherKeyReadsOtherBytes) {
  const KeptTestFile file;
  SlotRef slot;
  {
    const auto pool = *FilePool::Create(file.Options(kCapacity, DiskCipher::kAes256, 1));
    slot = *pool->Allocate(kSpace, kBlock);
    ASSERT_TRUE(pool->CopyFromHost(std::vector<uint8_t>(kBlock, 7), pool->Address(slot)).ok());
  }
  const auto pool = *FilePool::Create(file.Options(kCapacity, DiskCipher::kAes256, 2));
  ASSERT_TRUE(pool->Take(kSpace, kBlock, slot));
  const std::vector<uint8_t> got = Get(*pool, slot, kBlock);
  // Of noise one byte in 256 is any one.
  EXPECT_LT(std::count(got.begin(), got.end(), 7), static_cast<ptrdiff_t>(kBlock / 64));
}

TEST(KeptFilePoolTest, EveryCopyOfAKeyIsOverwrittenAtItsEnd) {
  alignas(KeptFile) std::array<uint8_t, sizeof(KeptFile)> memory = {};
  const auto keys_bytes = [&] { return std::count(memory.begin(), memory.end(), 0xa5); };
  KeptFile kept;
  kept.key.emplace().fill(0xa5);
  auto* const copy = new (memory.data()) KeptFile(kept);
  ASSERT_EQ(keys_bytes(), static_cast<ptrdiff_t>(FileCipher::kKeyBytes));
  copy->~KeptFile();
  EXPECT_EQ(keys_bytes(), 0);
}

TEST(KeptFilePoolTest, ADescriptorThatIsNoneIsRefused) {
  FilePoolOptions options{.folder = "/somewhere",
                          .capacity_bytes = kCapacity,
                          .cipher = DiskCipher::kNone,
                          .kept = KeptFile{.fd = -1}};
  EXPECT_EQ(RefusalReason(FilePool::Create(options).status()), "NVME_FOLDER");
}

TEST(KeptFilePoolTest, ADiskThatRefusesToSyncIsLost) {
  int pipe[2];
  ASSERT_EQ(::pipe(pipe), 0);
  const KeptTestFile file;
  const auto pool = *FilePool::Create(file.Options(kCapacity, DiskCipher::kNone));
  EXPECT_TRUE(pool->Sync().ok());
  // The pool's descriptor, the newest of the file, becomes one that cannot be synced.
  int of_pool = -1;
  for (int fd = 0; fd < 1024; ++fd) {
    struct stat here {
    }, kept{};
    if (fd == file.fd() || ::fstat(fd, &here) != 0 || ::fstat(file.fd(), &kept) != 0) continue;
    if (here.st_ino == kept.st_ino && here.st_dev == kept.st_dev) of_pool = fd;
  }
  ASSERT_GE(of_pool, 0);
  ASSERT_EQ(::dup2(pipe[1], of_pool), of_pool);
  EXPECT_EQ(RefusalReason(pool->Sync()), "SHARD_DISK_LOST");
  EXPECT_TRUE(pool->lost());
  EXPECT_FALSE(pool->Take(kSpace, kBlock, {0, 0})) << "nothing of it can be read";
  ::close(pipe[0]);
  ::close(pipe[1]);
}

TEST(KeptFilePoolDeathTest, ACipherHasAKeyAndNoCipherHasNone) {
  const KeptTestFile file;
  FilePoolOptions options = file.Options(kCapacity, DiskCipher::kAes256);
  options.cipher = DiskCipher::kNone;
  EXPECT_DEATH((void)FilePool::Create(options), "CHECK failed");
  options = file.Options(kCapacity, DiskCipher::kNone);
  options.cipher = DiskCipher::kAes256;
  EXPECT_DEATH((void)FilePool::Create(options), "CHECK failed");
}

TEST(FilePoolGeometryTest, IsWhatPoolsHave) {
  for (const uint64_t capacity : {uint64_t{1}, uint64_t{5} << 20, uint64_t{100} << 20}) {
    const auto pool = *FilePool::Create(
        {.folder = std::filesystem::temp_directory_path().string(), .capacity_bytes = capacity});
    const FilePoolGeometry geometry = FilePool::GeometryFor(capacity);
    EXPECT_EQ(geometry.extents, pool->extents());
    EXPECT_EQ(geometry.extent_bytes, pool->extent_bytes());
    EXPECT_EQ(geometry.bytes(), pool->capacity_bytes());
  }
}

TEST(FilePoolGeometryTest, ExtentsAreWholeAndOfOneSizeInLargeFiles) {
  const FilePoolGeometry geometry = FilePool::GeometryFor((uint64_t{100} << 30) + 12'345);
  EXPECT_EQ(geometry.extent_bytes, limits::kFileExtentBytesMax);
  EXPECT_EQ(geometry.bytes(), uint64_t{100} << 30);
  EXPECT_EQ(FilePool::GeometryFor(1).extents, 2u);
}

}  // namespace
}  // namespace reprise::shard
