// What the disk gets to see of the blocks in a file pool, and that its cipher loses none of their
// bytes; what every pool promises is in tests/conformance/pool, with the cipher and without.
#include "service/pool/file_pool.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/types/limits.h"
#include "tests/support/block_content.h"
#include "tests/support/nameless_file.h"
#include "tests/support/sanitizers.h"

namespace reprise::shard {
namespace {

using Bytes = std::vector<uint8_t>;
constexpr size_t kPiece = FileCipher::kPieceBytes;
constexpr uint64_t kCapacity = 6 << 20;
constexpr KeySpaceId kSpace(1), kOther(2);

// A pool in a folder of its own, so that its file is found.
class OnDisk {
 public:
  explicit OnDisk(DiskCipher cipher) {
    std::string folder = (std::filesystem::temp_directory_path() / "file-pool-XXXXXX").string();
    folder_ = ::mkdtemp(folder.data());
    pool_ = *FilePool::Create({.folder = folder_, .capacity_bytes = kCapacity, .cipher = cipher});
  }
  ~OnDisk() {
    pool_.reset();
    std::filesystem::remove(folder_);
  }
  OnDisk(const OnDisk&) = delete;
  OnDisk& operator=(const OnDisk&) = delete;

  FilePool* operator->() { return pool_.get(); }
  uint8_t* Slot(KeySpaceId space, uint64_t bytes) {
    return pool_->Address(pool_->Allocate(space, bytes).value());
  }
  void Put(std::span<const uint8_t> from, uint8_t* to) {
    ASSERT_TRUE(pool_->CopyFromHost(from, to).ok());
  }
  Bytes Get(const uint8_t* from, size_t bytes) {
    Bytes to(bytes);
    EXPECT_TRUE(pool_->CopyToHost(from, to).ok());
    return to;
  }
  // All that somebody with the disk has.
  Bytes File() const {
    const int fd = reprise::testing::NamelessFileIn(folder_);
    EXPECT_GE(fd, 0);
    Bytes file(pool_->capacity_bytes());
    for (size_t at = 0; at < file.size();) {
      const ssize_t got = ::pread(fd, &file[at], file.size() - at, static_cast<off_t>(at));
      if (got <= 0) break;
      at += static_cast<size_t>(got);
    }
    return file;
  }

 private:
  std::string folder_;
  std::unique_ptr<FilePool> pool_;
};

Bytes Content(uint64_t seed, size_t bytes) {
  Bytes content(bytes);
  reprise::testing::FillContent(BlockKey(), seed, content);
  return content;
}

bool Has(const Bytes& file, std::string_view text) {
  return std::search(file.begin(), file.end(), text.begin(), text.end()) != file.end();
}

size_t Nonzero(const Bytes& bytes) {
  return bytes.size() - static_cast<size_t>(std::count(bytes.begin(), bytes.end(), 0));
}

class FilePoolOn : public ::testing::TestWithParam<DiskCipher> {
 protected:
  OnDisk pool_{GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Ciphers, FilePoolOn,
                         ::testing::Values(DiskCipher::kAes256, DiskCipher::kNone),
                         [](const auto& cipher) {
                           return cipher.param == DiskCipher::kNone ? "None" : "Aes256";
                         });

constexpr std::string_view kCanary = "the canary sings!";

// By every way into the file: whole, in fragments that end anywhere, and from slot to slot.
void WriteCanaries(OnDisk& pool) {
  constexpr size_t kBlock = 600'000;
  Bytes block;
  while (block.size() < kBlock) block.insert(block.end(), kCanary.begin(), kCanary.end());
  block.resize(kBlock);
  const SlotRef whole = *pool->Allocate(kSpace, kBlock), copied = *pool->Allocate(kSpace, kBlock);
  pool.Put(block, pool->Address(whole));
  ASSERT_TRUE(pool->Copy(whole, copied, kBlock).ok());
  uint8_t* const at = pool.Slot(kOther, kBlock);
  for (size_t done = 0, part = 1; done < kBlock; done += part, part += 37) {
    part = std::min(part, kBlock - done);
    pool.Put(std::span(block).subspan(done, part), at + done);
  }
  ASSERT_EQ(pool.Get(pool->Address(copied), kBlock), block);
  ASSERT_EQ(pool.Get(at, kBlock), block);
  EXPECT_GE(Nonzero(pool.File()), 3 * kBlock / 2) << "it was written at all";
}

TEST(FilePoolTest, NothingOfWhatIsWrittenIsInTheFile) {
  OnDisk pool(DiskCipher::kAes256);
  WriteCanaries(pool);
  const Bytes file = pool.File();
  // Eight bytes of it, wherever the cut.
  for (size_t at = 0; at < kCanary.size(); ++at) {
    EXPECT_FALSE(Has(file, (std::string(kCanary) + std::string(kCanary)).substr(at, 8))) << at;
  }
}

TEST(FilePoolTest, WithoutTheCipherAllOfItIs) {
  OnDisk pool(DiskCipher::kNone);
  WriteCanaries(pool);
  EXPECT_TRUE(Has(pool.File(), kCanary));
}

TEST(FilePoolTest, EncryptedIsTheDefault) {
  const std::string folder = std::filesystem::temp_directory_path().string();
  const auto pool = *FilePool::Create({.folder = folder, .capacity_bytes = kCapacity});
  const SlotRef slot = *pool->Allocate(kSpace, kCanary.size());
  const Bytes canary(kCanary.begin(), kCanary.end());
  ASSERT_TRUE(pool->CopyFromHost(canary, pool->Address(slot)).ok());
  Bytes file(kCanary.size());
  ASSERT_EQ(::pread(reprise::testing::NamelessFileIn(folder), file.data(), file.size(), 0),
            static_cast<ssize_t>(file.size()));
  EXPECT_GT(Nonzero(file), 0u);
  EXPECT_NE(file, canary);
}

std::set<std::string> Pieces(const Bytes& file) {
  std::set<std::string> pieces;
  for (size_t at = 0; at < file.size(); at += kPiece) {
    const std::string piece(file.begin() + at, file.begin() + at + kPiece);
    if (piece != std::string(kPiece, '\0')) pieces.insert(piece);
  }
  return pieces;
}

TEST(FilePoolTest, EqualBlocksLookAlikeInNoPiece) {
  OnDisk pool(DiskCipher::kAes256);
  constexpr size_t kBlock = 4096 + 64;  // a slot begins anywhere in a unit
  const Bytes block(kBlock, 9);
  for (int i = 0; i < 100; ++i) pool.Put(block, pool.Slot(kSpace, kBlock));
  EXPECT_EQ(Pieces(pool.File()).size(), 100 * kBlock / kPiece);
}

TEST(FilePoolTest, TwoPoolsHaveTwoKeys) {
  OnDisk one(DiskCipher::kAes256), other(DiskCipher::kAes256);
  const Bytes block = Content(1, 1 << 20);
  one.Put(block, one.Slot(kSpace, block.size()));
  other.Put(block, other.Slot(kSpace, block.size()));
  std::set<std::string> pieces = Pieces(one.File());
  pieces.merge(Pieces(other.File()));
  EXPECT_EQ(pieces.size(), 2 * block.size() / kPiece);
}

TEST_P(FilePoolOn, AWipedExtentIsZeroesInTheFileAndInMemory) {
  const uint64_t extent = pool_->extent_bytes();
  std::vector<SlotRef> slots;
  while (const auto slot = pool_->Allocate(kSpace, extent)) {
    pool_.Put(Content(slots.size(), extent), pool_->Address(*slot));
    slots.push_back(*slot);
  }
  EXPECT_GT(Nonzero(pool_.File()), pool_->capacity_bytes() / 2);
  for (const SlotRef slot : slots) pool_->Free(slot);
  for (size_t i = 0; i < slots.size(); ++i) {
    EXPECT_EQ(Nonzero(pool_.Get(pool_.Slot(kOther, extent), extent)), 0u);
  }
  EXPECT_EQ(Nonzero(pool_.File()), 0u);
}

TEST_P(FilePoolOn, RandomRangesAreReadAsTheyWereWritten) {
  const uint64_t extent = pool_->extent_bytes();
  uint8_t* const at = pool_.Slot(kSpace, extent);
  Bytes shadow(extent);
  const uint32_t seed = std::random_device()();
  std::mt19937 random(seed);
  const auto range = [&](size_t bytes_max) {
    const size_t bytes = 1 + random() % bytes_max;
    return std::pair(random() % (extent - bytes + 1), bytes);
  };
  const size_t rounds = reprise::testing::kSanitized ? 200 : 1500;
  for (size_t i = 0; i < rounds; ++i) {
    // From parts of a piece to more than the cipher takes at once.
    const size_t bytes_max = std::array{40ul, 9'000ul, 700'000ul}[i % 3];
    const auto [first, bytes] = range(bytes_max);
    const Bytes put = Content(i, bytes);
    pool_.Put(put, at + first);
    std::copy(put.begin(), put.end(), shadow.begin() + static_cast<ptrdiff_t>(first));
    const auto [from, length] = range(bytes_max);
    const Bytes got = pool_.Get(at + from, length);
    ASSERT_TRUE(std::equal(got.begin(), got.end(), shadow.begin() + static_cast<ptrdiff_t>(from)))
        << "seed " << seed << ", round " << i << ": " << length << " bytes at " << from;
  }
  EXPECT_EQ(pool_.Get(at, extent), shadow) << "seed " << seed;
}

TEST_P(FilePoolOn, ABlockLargerThanTheBufferMovesWhole) {
  constexpr size_t kBlock = 2 * limits::kFileCipherBytes + 100'001;
  const SlotRef from = *pool_->Allocate(kSpace, kBlock), to = *pool_->Allocate(kSpace, kBlock);
  const Bytes block = Content(5, kBlock);
  pool_.Put(block, pool_->Address(from));
  ASSERT_TRUE(pool_->Copy(from, to, kBlock).ok());
  EXPECT_EQ(pool_.Get(pool_->Address(to), kBlock), block);
  EXPECT_EQ(pool_.Get(pool_->Address(from), kBlock), block);
}

TEST_P(FilePoolOn, ThreadsWriteAndReadTheirSlotsAtOnce) {
  constexpr size_t kBlock = 300'007, kThreads = 8;
  std::vector<uint8_t*> slots;
  for (size_t t = 0; t < kThreads; ++t) slots.push_back(pool_.Slot(kSpace, kBlock));
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t round = 0; round < 20; ++round) {
        const Bytes block = Content(t * 100 + round, kBlock);
        const size_t cut = 1 + (t * 7919 + round * 104'729) % (kBlock - 1);
        pool_.Put(std::span(block).first(cut), slots[t]);
        pool_.Put(std::span(block).subspan(cut), slots[t] + cut);
        ASSERT_EQ(pool_.Get(slots[t], kBlock), block) << t << " " << round;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_P(FilePoolOn, ThreadsThatWriteWithinOnePieceKeepEachOthersBytes) {
  constexpr size_t kThreads = 4, kBytes = 8192;
  uint8_t* const at = pool_.Slot(kSpace, kBytes);
  std::atomic<size_t> ready = 0;
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      ++ready;
      while (ready < kThreads) std::this_thread::yield();
      for (size_t i = t; i < kBytes; i += kThreads) {
        const uint8_t byte = static_cast<uint8_t>(i % 251);
        pool_.Put({&byte, 1}, at + i);
        ASSERT_EQ(pool_.Get(at + i, 1)[0], byte);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const Bytes got = pool_.Get(at, kBytes);
  for (size_t i = 0; i < kBytes; ++i) ASSERT_EQ(got[i], i % 251) << i;
}

}  // namespace
}  // namespace reprise::shard
