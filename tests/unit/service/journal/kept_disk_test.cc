#include "service/journal/kept_disk.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "proto/types/refusal.h"
#include "tests/unit/service/journal/kept_samples.h"

namespace reprise::shard {
namespace {

constexpr uint64_t kExtentBytes = 1 << 20;

class KeptDiskTest : public ::testing::Test {
 protected:
  struct Start {
    std::string id = "shard-0";
    int key = 1;  // 0: none
    uint64_t extent_bytes = kExtentBytes;
  };
  absl::StatusOr<std::unique_ptr<KeptDisk>> Open(const Start& start) {
    return KeptDisk::Open(
        {.folder = folder_.path(),
         .shard = {start.id},
         .extent_bytes = start.extent_bytes,
         .key = start.key == 0 ? nullptr : KeyOf(static_cast<uint8_t>(start.key))});
  }
  // A process that stores the samples, and ends.
  FileCipher::Key Store(const Start& start) {
    const auto disk = *Open(start);
    EXPECT_EQ(::ftruncate(disk->blocks_fd(), 2 * kExtentBytes), 0);
    EXPECT_EQ(::pwrite(disk->blocks_fd(), "block", 5, 0), 5);
    const auto journal = *disk->NewJournal();
    for (const KeptBatch& batch : SampleBatches()) EXPECT_TRUE(journal->Append(batch).ok());
    EXPECT_TRUE(journal->Publish().ok());
    return disk->BlocksKey().value_or(FileCipher::Key{});
  }
  off_t BlocksBytes(const KeptDisk& disk) {
    struct stat file = {};
    EXPECT_EQ(::fstat(disk.blocks_fd(), &file), 0);
    return file.st_size;
  }
  // The disk of a process that finds nothing, and nothing in its place.
  void ExpectEmpty(KeptDisk& disk, const std::string& why) {
    const KeptDisk::Found found = disk.TakeFound();
    ExpectSame(found.contents, KeptContents{});
    EXPECT_EQ(why.empty(), found.why_empty.empty()) << found.why_empty;
    EXPECT_TRUE(absl::StrContains(found.why_empty, why)) << found.why_empty;
    EXPECT_EQ(BlocksBytes(disk), 0);
    EXPECT_EQ(folder_.Names(), std::vector<std::string>{"reprise-shard-0.blocks"});
  }

  const TestFolder folder_;
};

TEST_F(KeptDiskTest, ANewOneIsEmpty) {
  const auto disk = Open({});
  ASSERT_TRUE(disk.ok()) << disk.status();
  ExpectEmpty(**disk, "");
  struct stat file = {};
  ASSERT_EQ(::fstat((*disk)->blocks_fd(), &file), 0);
  EXPECT_EQ(file.st_mode & 0777, 0600);
  EXPECT_NE(::fcntl((*disk)->blocks_fd(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST_F(KeptDiskTest, TheNextProcessFindsWhatTheLastOneLeft) {
  for (const int key : {0, 1}) {
    const Start start{.id = absl::StrCat("shard-", key), .key = key};
    const FileCipher::Key before = Store(start);
    const auto disk = *Open(start);
    const KeptDisk::Found found = disk->TakeFound();
    EXPECT_EQ(found.why_empty, "");
    ExpectSame(found.contents, ComeTo(SampleBatches()));
    EXPECT_EQ(disk->BlocksKey().has_value(), key != 0);
    EXPECT_EQ(disk->BlocksKey().value_or(FileCipher::Key{}), before);
    char block[5];
    ASSERT_EQ(::pread(disk->blocks_fd(), block, sizeof(block), 0), 5);
    EXPECT_EQ(std::string(block, sizeof(block)), "block");
    EXPECT_TRUE(disk->TakeFound().contents.blocks.empty()) << "a second time";
  }
}

TEST_F(KeptDiskTest, TheKeyOfTheBlocksStaysThroughManyJournals) {
  const FileCipher::Key before = Store({});
  for (int i = 0; i < 3; ++i) {
    const auto disk = *Open({});
    const auto journal = *disk->NewJournal();
    ASSERT_TRUE(journal->Append(SampleBatches()[0]).ok());
    ASSERT_TRUE(journal->Publish().ok());
    EXPECT_EQ(disk->BlocksKey(), before);
  }
  EXPECT_EQ((*Open({}))->TakeFound().contents.blocks.size(), 6);
}

TEST_F(KeptDiskTest, AnEmptyDiskHasAnotherKey) {
  const auto first = (*Open({}))->BlocksKey();
  const auto second = (*Open({}))->BlocksKey();
  EXPECT_NE(first, second);
  EXPECT_NE(*first, FileCipher::Key{});
}

TEST_F(KeptDiskTest, AnotherKeyIsAMistakeThatCostsNothing) {
  for (const auto& [before, after, why] :
       {std::tuple(1, 2, "under another key"), std::tuple(1, 0, "there is no key"),
        std::tuple(0, 1, "is not enciphered")}) {
    SCOPED_TRACE(why);
    const Start start{.id = absl::StrCat("shard-", why), .key = before};
    const Start mistaken{.id = start.id, .key = after};
    Store(start);
    const auto refused = Open(mistaken);
    EXPECT_EQ(RefusalReason(refused.status()), "NVME_KEY");
    EXPECT_TRUE(absl::StrContains(refused.status().message(), why)) << refused.status();
    ExpectSame((*Open(start))->TakeFound().contents, ComeTo(SampleBatches()));
  }
}

TEST_F(KeptDiskTest, ExtentsOfAnotherSizeAreNotTakenOver) {
  Store({});
  const auto disk = *Open({.extent_bytes = 2 * kExtentBytes});
  ExpectEmpty(*disk, "extents of 1048576 bytes, and this process has them of 2097152");
}

TEST_F(KeptDiskTest, AJournalWithoutItsBlocksIsNotTakenOver) {
  Store({});
  ASSERT_EQ(::truncate(folder_.File("reprise-shard-0.blocks").c_str(), 2 * kExtentBytes - 1), 0);
  ExpectEmpty(**Open({}), "2097151 bytes");
  Store({});
  std::filesystem::remove(folder_.File("reprise-shard-0.blocks"));
  ExpectEmpty(**Open({}), "has 0 bytes");
}

TEST_F(KeptDiskTest, BlocksWithoutAJournalAreNobodys) {
  Store({});
  std::filesystem::remove(folder_.File("reprise-shard-0.journal"));
  ExpectEmpty(**Open({}), "");
}

TEST_F(KeptDiskTest, ADamagedJournalIsNoReasonNotToStart) {
  Store({});
  WriteBytes(folder_.File("reprise-shard-0.journal"), "something else");
  ExpectEmpty(**Open({}), "reprise-shard-0.journal");
}

TEST_F(KeptDiskTest, OneProcessHasItAlone) {
  auto first = *Open({});
  const auto second = Open({});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(RefusalReason(second.status()), "NVME_IN_USE");
  EXPECT_TRUE(absl::StrContains(second.status().message(), "reprise-shard-0.blocks"));
  EXPECT_TRUE(Open({.id = "shard-1"}).ok()) << "another one's";
  first.reset();
  EXPECT_TRUE(Open({}).ok());
}

// One that is refused has changed nothing.
TEST_F(KeptDiskTest, WhoeverComesSecondLeavesItAsItIs) {
  Store({});
  const auto first = *Open({});
  const auto journal = *first->NewJournal();
  const std::vector<std::string> names = folder_.Names();
  EXPECT_FALSE(Open({.key = 2}).ok());
  EXPECT_EQ(folder_.Names(), names);
  EXPECT_EQ(BlocksBytes(*first), 2 * kExtentBytes);
}

TEST_F(KeptDiskTest, EveryIdHasFilesOfItsOwn) {
  const std::vector<std::string> ids = {"a/b", "a%2fb", "a%2Fb", "a b", "../a", "", "A"};
  std::vector<std::unique_ptr<KeptDisk>> disks;
  for (const std::string& id : ids) {
    auto disk = Open({.id = id});
    ASSERT_TRUE(disk.ok()) << disk.status();
    disks.push_back(*std::move(disk));
  }
  EXPECT_EQ(folder_.Names().size(), ids.size());
  EXPECT_TRUE(std::filesystem::exists(folder_.File("reprise-a%2fb.blocks")));
  EXPECT_TRUE(std::filesystem::exists(folder_.File("reprise-a%252fb.blocks")));
  disks.clear();
  Store({.id = "a/b"});
  EXPECT_TRUE((*Open({.id = "a%2fb"}))->TakeFound().contents.blocks.empty());
  EXPECT_FALSE((*Open({.id = "a/b"}))->TakeFound().contents.blocks.empty());
}

TEST_F(KeptDiskTest, AJournalThatWasNotPublishedIsRemoved) {
  Store({});
  WriteBytes(folder_.File("reprise-shard-0.journal.new"), "half of one");
  const auto disk = *Open({});
  EXPECT_EQ(folder_.Names(),
            (std::vector<std::string>{"reprise-shard-0.blocks", "reprise-shard-0.journal"}));
  EXPECT_FALSE(disk->TakeFound().contents.blocks.empty());
  EXPECT_TRUE(disk->NewJournal().ok());
}

TEST_F(KeptDiskTest, WhatIsForgottenNobodyFinds) {
  {
    const auto disk = *Open({});
    ASSERT_EQ(::ftruncate(disk->blocks_fd(), 2 * kExtentBytes), 0);
    const auto journal = *disk->NewJournal();
    ASSERT_TRUE(journal->Append(SampleBatches()[0]).ok());
    ASSERT_TRUE(journal->Publish().ok());
    disk->Forget();
    disk->Forget();
    EXPECT_TRUE(journal->Append(SampleBatches()[1]).ok());
    EXPECT_TRUE(journal->Sync().ok());
  }
  ExpectEmpty(**Open({}), "");
}

TEST_F(KeptDiskTest, AFolderWithoutRoomForFilesIsNamed) {
  for (const std::string& folder : {folder_.File("none"), std::string("/proc")}) {
    const auto disk = KeptDisk::Open({.folder = folder, .shard = {"a"}, .extent_bytes = 1});
    EXPECT_EQ(disk.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(RefusalReason(disk.status()), "NVME_FOLDER");
    EXPECT_TRUE(absl::StrContains(disk.status().message(), folder)) << disk.status();
  }
}

}  // namespace
}  // namespace reprise::shard
