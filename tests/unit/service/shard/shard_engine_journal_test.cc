// What the journal of a disk that is kept says and when, how large it gets, and what becomes of a
// disk that fails or has no room for it.
#include <algorithm>
#include <atomic>
#include <filesystem>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/file_size_limit.h"
#include "tests/unit/service/shard/kept_fixture.h"

namespace reprise::shard {
namespace {

using ::testing::HasSubstr;

// In the order of their places.
std::vector<KeptBlock> ByPlace(std::vector<KeptBlock> blocks) {
  std::sort(blocks.begin(), blocks.end(), [](const KeptBlock& a, const KeptBlock& b) {
    return std::pair(a.slot.extent, a.slot.index) < std::pair(b.slot.extent, b.slot.index);
  });
  return blocks;
}

TEST_F(KeptTest, EachProcessSaysOfABlockWhatTheLastOneSaid) {
  std::vector<uint32_t> tokens(kLength * kSpec.block_tokens), positions(kLength);
  std::iota(tokens.begin(), tokens.end(), 1000);
  std::iota(positions.begin(), positions.end(), 77);
  ASSERT_TRUE(Store(me_, kSpec,
                    {.spec = spec_,
                     .keys = Chain(0),
                     .session_id = "user-1",
                     .token_positions = positions,
                     .token_ids = tokens})
                  .status.ok());
  Fill(1, 1);
  Save();
  AwaitJournal();
  const std::vector<KeptBlock> said = ByPlace(Journaled());
  ASSERT_EQ(said.size(), 2 * kLength);
  for (const KeptBlock& block : said) {
    const size_t at = block.depth;
    if (block.key != Chain(0)[at]) continue;
    EXPECT_EQ(block.token_position, 77 + at);
    EXPECT_EQ(block.token_ids,
              std::vector<uint32_t>(tokens.begin() + at * kSpec.block_tokens,
                                    tokens.begin() + (at + 1) * kSpec.block_tokens));
  }
  for (int process = 0; process < 2; ++process) {
    Restart();
    EXPECT_EQ(ByPlace(Journaled()), said);
  }
}

// Until much of a journal is of the past what changes is added to it, and nothing else is.
TEST_F(KeptTest, AJournalSaysWhatChangedOnce) {
  Fill(0, 4);
  Save();
  AwaitJournal();
  const uint64_t before = std::filesystem::file_size(PathOf("journal"));
  const std::vector<BlockKey> last = {ChainNamed("one more", 1)};
  ASSERT_TRUE(Store(last).status.ok());
  Save();
  AwaitJournal();
  const uint64_t added = std::filesystem::file_size(PathOf("journal")) - before;
  EXPECT_GT(added, 0u);
  EXPECT_LT(added, before / 8);
}

TEST_F(KeptTest, ManyChangesAtOnceAreAllSaid) {
  Restart({.nvme_bytes = 16 * kMiB});
  const CacheSpec small = SmallSpec(4, 1);
  const auto keys = ChainNamed("long", limits::kJournalBatchBlocks + 500);
  ASSERT_EQ(Store(me_, small, {.spec = Open(me_, small), .keys = keys}).commit.committed,
            keys.size());
  EXPECT_EQ(Save(), 0u);
  AwaitJournal();
  EXPECT_EQ(Journaled().size(), keys.size());
  Restart({.nvme_bytes = 16 * kMiB});
  EXPECT_EQ(Disk().restored_blocks, keys.size());
}

TEST_F(KeptTest, WhatIsBeingWrittenIsNotStoredYet) {
  // All of the disk, and all of memory, which is read.
  Fill(0, kFillDisk);
  Save();
  Fill(100, kFillDram);
  std::vector<LeaseId> leases;
  for (size_t i = 0; i < kFillDram; ++i) leases.push_back(Acquire(Chain(100 + i)).lease);
  AwaitJournal();
  ASSERT_EQ(Journaled().size(), kFillDisk * kLength);
  // The places of what goes are somebody's at once.
  const auto reserved = engine_->Reserve(me_, {.spec = spec_, .keys = Chain(50)});
  ASSERT_TRUE(reserved.ok());
  for (uint32_t i = 0; i < kLength; ++i) {
    const auto slot = engine_->OpenWrite(me_, reserved->reservation, i);
    ASSERT_TRUE(slot.ok());
    ASSERT_EQ(slot->memory, lanes::MemoryKind::kFile);
  }
  const size_t left = (kFillDisk - 1) * kLength;
  EXPECT_TRUE(reprise::testing::Soon([&] { return Journaled().size() == left; }));
}

TEST_F(KeptTest, WhatIsOnItsWayToTheDiskIsNotThereYet) {
  control_ = std::make_shared<reprise::testing::HostHbmControl>();
  Restart({.dram_bytes = 0, .hbm_bytes = 4 * kMiB});
  Fill(0, kFillDisk);
  EXPECT_EQ(Save(), 0u);
  Fill(100, 1);
  AwaitJournal();
  ASSERT_EQ(Journaled().size(), kFillDisk * kLength);
  // The places of what goes are taken at once, and what comes there takes its time.
  const size_t left = (kFillDisk - 1) * kLength;
  std::atomic<bool> asked = false, gone = false;
  control_->before_copy = [&] {
    if (asked.exchange(true)) return;
    gone = reprise::testing::Soon([&] { return Journaled().size() == left; });
  };
  EXPECT_EQ(Save(), 0u);
  EXPECT_TRUE(gone);
  control_->before_copy = nullptr;
  AwaitJournal();
  EXPECT_EQ(Journaled().size(), kFillDisk * kLength);
}

// Many small blocks that come and go: what the journal says of them is mostly of the past.
// Their tokens make its records large.
class ComeAndGo : public KeptTest {
 protected:
  static constexpr uint32_t kTokens = 1024;
  void SetUp() override {
    KeptTest::SetUp();
    many_.attention = AttentionKind::kMla;
    many_.kv_heads = 0;
    many_.head_dim = 8;
    Next();
  }
  void Next() {
    Restart({.dram_bytes = 2 * kMiB, .nvme_bytes = 16 * kMiB});
    handle_ = Open(me_, many_);
  }
  // Another chain comes, and what was used longest ago goes.
  void Come() {
    keys_ = ChainNamed(absl::StrCat("s", ++chains_), 64);
    const std::vector<uint32_t> tokens(keys_.size() * kTokens, UINT32_MAX - chains_);
    const Stored stored = Store(me_, many_, {.spec = handle_, .keys = keys_, .token_ids = tokens});
    ASSERT_TRUE(stored.status.ok()) << stored.status;
  }
  void ExpectTheLastIsKept() {
    Save();
    Next();
    const AcquireResult acquired = *engine_->Acquire(me_, {.spec = handle_, .keys = keys_});
    ASSERT_EQ(acquired.run_blocks, keys_.size());
    ExpectReads(acquired.lease, keys_);
  }
  uint64_t JournalBytes() const { return std::filesystem::file_size(PathOf("journal")); }

  CacheSpec many_ = SmallSpec(1, kTokens);
  SpecHandle handle_;
  uint32_t chains_ = 0;
  std::vector<BlockKey> keys_;
};

TEST_F(ComeAndGo, TheirJournalDoesNotGrowForEver) {
  uint64_t last = 0;
  for (uint64_t now = JournalBytes(); now >= last; now = JournalBytes()) {
    last = now;
    ASSERT_LE(now, 2 * limits::kJournalRewriteBytesMin);
    ASSERT_NO_FATAL_FAILURE(Come());
  }
  EXPECT_GT(last, limits::kJournalRewriteBytesMin / 2);
  ExpectSound();
  ExpectTheLastIsKept();
}

// What is in the way of a new journal goes, and a later try has one.
TEST_F(ComeAndGo, AJournalThatCannotBeWrittenAnewGrowsUntilItCan) {
  std::filesystem::create_directory(PathOf("journal.new"));
  while (JournalBytes() <= 2 * limits::kJournalRewriteBytesMin) {
    ASSERT_NO_FATAL_FAILURE(Come());
    ASSERT_EQ(Disk().why_not_kept, "");
  }
  AwaitJournal();
  std::filesystem::remove(PathOf("journal.new"));
  uint64_t last = 0;
  for (uint64_t now = JournalBytes(); now >= last; now = JournalBytes()) {
    last = now;
    ASSERT_LE(now, 2 * limits::kJournalRewriteFactor * limits::kJournalRewriteBytesMin);
    ASSERT_NO_FATAL_FAILURE(Come());
  }
  EXPECT_EQ(Disk().why_not_kept, "");
  ExpectSound();
  ExpectTheLastIsKept();
}

TEST_F(KeptTest, AJournalThatCannotBeWrittenAnewGoesOnAsItIs) {
  Fill(0, 2);
  Save();
  // The end wants to write a new one, and something is in its way.
  std::filesystem::create_directory(PathOf("journal.new"));
  EXPECT_TRUE(engine_->Close().ok());
  engine_ = nullptr;
  std::filesystem::remove(PathOf("journal.new"));
  Begin();
  EXPECT_TRUE(Disk().clean);
  ExpectStored(0, 2);
}

TEST_F(KeptTest, ADiskWithoutRoomForItsJournalIsForgottenAndSaysSo) {
  std::string said;
  {
    ShardEngineOptions options = OptionsOf({.nvme_bytes = 4 * kMiB});
    options.log = [&](absl::string_view line) { said = std::string(line); };
    StartWith(std::move(options));
  }
  Fill(0, 2);
  Save();
  AwaitJournal();
  // As long as the file of blocks may be, and no longer.
  const reprise::testing::FileSizeLimit limit(5 * kMiB);
  const CacheSpec small = SmallSpec(4, 1);
  const SpecHandle handle = Open(me_, small);
  const std::string session(limits::kNameBytesMax, 's');
  for (size_t i = 0; Disk().why_not_kept.empty(); ++i) {
    ASSERT_LT(i, 1000u);
    ASSERT_TRUE(
        Store(
            me_, small,
            {.spec = handle, .keys = ChainNamed(absl::StrCat("s", i), 512), .session_id = session})
            .status.ok());
    Save();
  }
  EXPECT_THAT(Disk().why_not_kept, HasSubstr("File too large"));
  EXPECT_THAT(said, HasSubstr("File too large"));
  EXPECT_FALSE(std::filesystem::exists(PathOf("journal")));
  EXPECT_TRUE(engine_->Remove(me_, spec_, Chain(0)).ok()) << "nobody waits for it any more";
  EXPECT_TRUE(engine_->Close().ok());
}

TEST_F(KeptTest, NoProcessBeginsWithADiskThatTakesNoJournal) {
  Fill(0, 2);
  Save();
  engine_ = nullptr;
  std::filesystem::create_directory(PathOf("journal.new"));
  ShardEngineOptions options = OptionsOf(Config());
  options.id = {"shard-0"};
  EXPECT_TRUE(absl::IsInternal(ShardEngine::Create(std::move(options)).status()));
  std::filesystem::remove(PathOf("journal.new"));
  Begin();
  ExpectStored(0, 2);
}

TEST_F(KeptTest, ADiskThatFailedIsForgotten) {
  Fill(0, kFillDram + 2);
  AwaitJournal();
  LoseDisk(Chain(0));
  engine_->Tick();
  EXPECT_TRUE(reprise::testing::Soon([&] { return !Disk().why_not_kept.empty(); }));
  EXPECT_FALSE(std::filesystem::exists(PathOf("journal")));
  Restart();
  EXPECT_EQ(Disk().restored_blocks, 0u);
  Fill(0, kFillDram + 2);
  ExpectStored(0, kFillDram + 2);
}

TEST_F(KeptTest, ADiskThatFailedJustBeforeTheEndIsForgottenToo) {
  Fill(0, kFillDram + 2);
  AwaitJournal();
  LoseDisk(Chain(0));
  engine_ = nullptr;
  EXPECT_FALSE(std::filesystem::exists(PathOf("journal")));
  Begin();
  EXPECT_EQ(Disk().restored_blocks, 0u);
}

TEST_F(KeptTest, WhyADiskIsNotKeptAnyMoreIsSaid) {
  Fill(0, kFillDram + 2);
  LoseDisk(Chain(0));
  engine_->Tick();
  EXPECT_TRUE(reprise::testing::Soon([&] { return !Disk().why_not_kept.empty(); }));
  EXPECT_THAT(Disk().why_not_kept, HasSubstr("the disk is lost"));
}

TEST_F(KeptTest, NothingMovesToADiskThatFailed) {
  Fill(0, kFillDram + 2);
  LoseDisk(Chain(0));
  engine_->Tick();
  EXPECT_EQ(Save(), kFillDram * kLength);
  ExpectSound();
}

}  // namespace
}  // namespace reprise::shard
