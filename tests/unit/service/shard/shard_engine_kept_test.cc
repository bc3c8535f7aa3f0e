// A disk that is kept over restarts, and processes that end in order.
#include <fstream>
#include <utility>

#include "tests/support/file_size_limit.h"
#include "tests/unit/service/shard/kept_fixture.h"

namespace reprise::shard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST_F(KeptTest, WhatIsOnTheDiskIsThereForTheNextProcessByteForByte) {
  Fill(0, kFillDram + 4);
  ASSERT_THAT(TiersOf(Chain(3)), ElementsAre(Nvme(kLength)));
  Restart();
  EXPECT_TRUE(Disk().clean);
  EXPECT_EQ(Disk().restored_blocks, 4 * kLength);
  EXPECT_EQ(CounterValue("restored_blocks_total"), 4 * kLength);
  for (size_t i = 0; i < 4; ++i) EXPECT_THAT(TiersOf(Chain(i)), ElementsAre(Nvme(kLength))) << i;
  ExpectStored(0, 4);
  for (size_t i = 4; i < kFillDram + 4; ++i) EXPECT_EQ(Run(Chain(i)), 0u) << i;
}

TEST_F(KeptTest, WhatIsInMemoryIsSavedBeforeAStop) {
  Fill(0, kFillDram);
  EXPECT_EQ(Save(), 0u);
  EXPECT_EQ(engine_->Describe(std::nullopt).tiers[0].used_bytes, 0u);
  Restart();
  ExpectStored(0, kFillDram);
}

TEST_F(KeptTest, WhatIsReadIsSavedWhenItsLeaseIsOver) {
  Fill(0, 2);
  const AcquireResult acquired = Acquire(Chain(0));
  EXPECT_EQ(Save(), kLength);
  ASSERT_TRUE(engine_->Release(me_, {{acquired.lease}}).ok());
  EXPECT_EQ(Save(), 0u);
  Restart();
  ExpectStored(0, 2);
}

TEST_F(KeptTest, NothingIsSavedAfterTheDeadline) {
  Fill(0, 2);
  EXPECT_EQ(engine_->Save(absl::InfinitePast()).in_memory, 2 * kLength);
  EXPECT_THAT(TiersOf(Chain(0)), ElementsAre(Dram(kLength)));
}

TEST_F(KeptTest, ManyProcessesOneAfterTheOther) {
  for (size_t i = 0; i < 5; ++i) {
    Fill(i, 1);
    EXPECT_EQ(Save(), 0u);
    Restart();
    ExpectStored(0, i + 1);
  }
}

TEST_F(KeptTest, WithoutACipherToo) {
  const Config plain{.secret = ""};
  engine_ = nullptr;
  std::filesystem::remove(PathOf("journal"));
  Begin(plain);
  Fill(0, 2);
  Save();
  Restart(plain);
  ExpectStored(0, 2);
}

TEST_F(KeptTest, BranchesComeBackAsTheForestThatTheyWere) {
  const auto head = ChainNamed("system prompt", 4);
  for (const char* name : {"a", "b", "c"}) ASSERT_TRUE(Store(Branch(head, name, 6)).status.ok());
  Save();
  Restart();
  EXPECT_EQ(Disk().restored_blocks, 4u + 3 * 6);
  for (const char* name : {"a", "b", "c"}) ExpectStored(Branch(head, name, 6));
  // And grow on.
  ASSERT_EQ(Store(Branch(Branch(head, "a", 6), "later", 2)).commit.committed, 2u);
  ExpectStored(Branch(Branch(head, "a", 6), "later", 2));
}

TEST_F(KeptTest, WhatChainsCarryComesBackWithThem) {
  std::vector<uint32_t> tokens(kLength * kSpec.block_tokens);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<uint32_t>(1000 + i);
  ASSERT_TRUE(Store(me_, kSpec,
                    {.spec = spec_, .keys = Chain(0), .session_id = "user-1", .token_ids = tokens})
                  .status.ok());
  Save();
  Restart();
  const std::vector<ChainEnd> ends = engine_->Chains();
  ASSERT_EQ(ends.size(), 1u);
  const std::optional<CommittedChain> chain = engine_->ChainTo(ends[0]);
  ASSERT_TRUE(chain.has_value());
  EXPECT_EQ(chain->keys, Chain(0));
  EXPECT_EQ(chain->session_id, "user-1");
  EXPECT_EQ(chain->token_ids, tokens);
}

TEST_F(KeptTest, ATenantFindsItsOwnBlocksAndNobodyElses) {
  const AttachmentId other = Attach("other");
  const SpecHandle other_spec = Open(other, kSpec);
  ASSERT_TRUE(Store(other, kSpec, {.spec = other_spec, .keys = Chain(0)}).status.ok());
  Fill(1, 1);
  Save();
  Restart();
  EXPECT_EQ(Run(Chain(0)), 0u);
  ExpectStored(1, 1);
  const AttachmentId again = Attach("other");
  EXPECT_EQ(Run(again, Open(again, kSpec), Chain(0)), kLength);
  EXPECT_EQ(Run(again, Open(again, kSpec), Chain(1)), 0u);
}

TEST_F(KeptTest, WhatWasUsedLongestAgoStillGoesFirst) {
  Fill(0, kFillDisk);
  for (size_t i = 0; i < kFillDisk; i += 2) ExpectStored(i, 1);  // the odd ones are colder
  Save();
  Restart();
  Fill(100, kFillDram + 4);  // as many chains as fill memory, and four more
  for (size_t i = 0; i < kFillDisk; i += 2) EXPECT_EQ(Run(Chain(i)), kLength) << i;
  uint32_t odd = 0;
  for (size_t i = 1; i < kFillDisk; i += 2) odd += Run(Chain(i));
  EXPECT_EQ(odd, (kFillDisk / 2 - 4) * kLength);
}

TEST_F(KeptTest, WhatIsClaimedStaysClaimedUntilItsTime) {
  Fill(0, kFillDisk);
  ASSERT_TRUE(
      engine_
          ->Hint(me_,
                 {.spec = spec_,
                  .keys = Chain(0),
                  .hint = {.verb = HintVerb::kPin, .claim_id = "prompt", .ttl = absl::Minutes(10)}})
          .ok());
  Save();
  Restart();
  EXPECT_EQ(engine_->Describe(std::nullopt).claims.pinned_bytes, kLength * kBlockBytes);
  Fill(100, kFillDisk + kFillDram);
  EXPECT_EQ(Run(Chain(0)), kLength);
  EXPECT_EQ(Run(Chain(1)), 0u);
  clock_.Advance(absl::Minutes(10));
  engine_->Tick();
  EXPECT_EQ(engine_->Describe(std::nullopt).claims.claims, 0u);
}

TEST_F(KeptTest, AClaimThatWaitedForBlocksStillDoes) {
  ASSERT_TRUE(engine_
                  ->Hint(me_, {.spec = spec_,
                               .keys = Chain(0),
                               .hint = {.verb = HintVerb::kRetain,
                                        .claim_id = "soon",
                                        .priority = 50,
                                        .ttl = absl::Minutes(10)}})
                  .ok());
  Restart();
  Fill(0, 1);
  EXPECT_EQ(engine_->Describe(std::nullopt).claims.claimed_bytes, kLength * kBlockBytes);
}

TEST_F(KeptTest, WhatWasRemovedIsGone) {
  Fill(0, 2);
  Save();
  ASSERT_EQ(engine_->Remove(me_, spec_, Chain(0))->removed, kLength);
  Restart();
  EXPECT_EQ(Run(Chain(0)), 0u);
  ExpectStored(1, 1);
}

TEST_F(KeptTest, AnotherSecretIsAMistakeThatCostsNothing) {
  Fill(0, 2);
  Save();
  engine_ = nullptr;
  ShardEngineOptions options = OptionsOf({.secret = std::string(limits::kDiskKeyBytesMin, 'x')});
  options.id = {"shard-0"};
  EXPECT_EQ(CodeAndReason(ShardEngine::Create(std::move(options)).status()),
            "FAILED_PRECONDITION NVME_KEY");
  Begin();
  ExpectStored(0, 2);
}

TEST_F(KeptTest, AJournalThatNobodyCanReadIsADiskThatStartsEmptyAndSaysWhy) {
  Fill(0, 2);
  Save();
  engine_ = nullptr;
  std::filesystem::resize_file(PathOf("journal"), 10);
  Begin();
  EXPECT_EQ(Disk().restored_blocks, 0u);
  EXPECT_THAT(Disk().why_empty, HasSubstr("10 bytes"));
  EXPECT_EQ(Run(Chain(0)), 0u);
  Fill(10, 2);
  ExpectStored(10, 2);
}

TEST_F(KeptTest, ALargerDiskKeepsWhatThereWasAndASmallerOneWhatHasRoom) {
  Fill(0, kFillDisk);
  Save();
  Restart({.nvme_bytes = 12 * kMiB});
  ExpectStored(0, kFillDisk);
  ASSERT_EQ(Store(Chain(50)).commit.committed, kLength);
  Save();
  Restart({.nvme_bytes = 4 * kMiB});
  EXPECT_GT(Disk().restored_blocks, 0u);
  EXPECT_LE(Disk().restored_blocks, 64u);
  for (size_t i = 0; i < kFillDisk; ++i) {
    const uint32_t run = Run(Chain(i));
    if (run > 0) ExpectStored(First(Chain(i), run));
  }
}

TEST_F(KeptTest, ATenantOfASmallerQuotaKeepsWhatItUsedLast) {
  Fill(0, 4);
  Save();
  TenantQuotas quotas;
  quotas.default_bytes = 2 * kLength * kBlockBytes;
  Restart({.quotas = quotas});
  EXPECT_EQ(Disk().restored_blocks, 2 * kLength);
  ExpectStored(2, 2);
  EXPECT_EQ(Run(Chain(0)), 0u);
}

TEST_F(KeptTest, TheNextOwnerOfAPlaceReadsNothingOfTheLastProcess) {
  Fill(0, kFillDisk);
  Save();
  for (size_t i = 0; i < kFillDisk; ++i) {
    ASSERT_TRUE(engine_->Remove(me_, spec_, {{Chain(i)[0]}}).ok());
  }
  Restart();
  ASSERT_EQ(Disk().restored_blocks, 0u);
  // Memory is full, so that slots are granted on the disk; and nothing is written to them.
  Fill(0, kFillDram);
  const AttachmentId other = Attach("other");
  const SpecHandle other_spec = Open(other, kSpec);
  const auto keys = ChainNamed("unwritten", 100);
  const auto reserved = engine_->Reserve(other, {.spec = other_spec, .keys = keys});
  ASSERT_TRUE(reserved.ok()) << reserved.status();
  uint32_t on_disk = 0;
  for (uint32_t i = 0; i < keys.size(); ++i) {
    if (reserved->outcomes[i] != ReserveOutcome::kGranted) continue;
    const auto slot = engine_->OpenWrite(other, reserved->reservation, i);
    ASSERT_TRUE(slot.ok());
    if (slot->memory != lanes::MemoryKind::kFile) continue;
    std::vector<uint8_t> bytes(slot->bytes.size());
    ASSERT_TRUE(engine_->CopyToHost(slot->bytes, bytes).ok());
    EXPECT_EQ(bytes, std::vector<uint8_t>(bytes.size()));
    ++on_disk;
  }
  EXPECT_GT(on_disk, 0u);
}

TEST_F(KeptTest, TwoProcessesDoNotShareADisk) {
  const auto second = ShardEngine::Create([&] {
    ShardEngineOptions options = OptionsOf(Config());
    options.id = {"shard-0"};
    return options;
  }());
  EXPECT_EQ(CodeAndReason(second.status()), "FAILED_PRECONDITION NVME_IN_USE");
}

TEST_F(KeptTest, ADiskThatFailedIsForgotten) {
  Fill(0, kFillDram + 2);
  AwaitJournal();
  std::filesystem::resize_file(PathOf("blocks"), 0);
  {
    const AcquireResult cold = Acquire(Chain(0));
    const auto opened = engine_->OpenRead(me_, cold.lease, 0, 1);
    ASSERT_TRUE(opened.ok());
    std::vector<uint8_t> bytes(kBlockBytes);
    ASSERT_FALSE(engine_->CopyToHost(opened->front().bytes, bytes).ok());
    engine_->Tick();
  }
  EXPECT_TRUE(reprise::testing::Soon([&] { return !Disk().why_not_kept.empty(); }));
  EXPECT_FALSE(std::filesystem::exists(PathOf("journal")));
  Restart();
  EXPECT_EQ(Disk().restored_blocks, 0u);
  Fill(0, kFillDram + 2);
  ExpectStored(0, kFillDram + 2);
}

// Many small blocks that come and go: what the journal says of them is mostly of the past.
TEST_F(KeptTest, TheJournalOfWhatComesAndGoesDoesNotGrowForEver) {
  Restart({.dram_bytes = 2 * kMiB, .nvme_bytes = 4 * kMiB});
  const CacheSpec small = SmallSpec(4, 1);
  const SpecHandle handle = Open(me_, small);
  const std::string session(limits::kNameBytesMax, 's');
  const uint64_t most = limits::kJournalRewriteBytesMin;
  uint64_t written = 0, last = 0;
  std::vector<BlockKey> keys;
  for (size_t i = 0; written < 2 * most; ++i) {
    keys = ChainNamed(absl::StrCat("s", i), 512);
    const Stored stored = Store(me_, small, {.spec = handle, .keys = keys, .session_id = session});
    ASSERT_TRUE(stored.status.ok()) << stored.status;
    const uint64_t now = std::filesystem::file_size(PathOf("journal"));
    written += now > last ? now - last : now;
    last = now;
    ASSERT_LE(now, most + most / 2);
    ASSERT_LT(i, 4000u);
  }
  ExpectSound();
  Save();
  Restart({.dram_bytes = 2 * kMiB, .nvme_bytes = 4 * kMiB});
  const AcquireResult acquired = *engine_->Acquire(me_, {.spec = Open(me_, small), .keys = keys});
  ASSERT_EQ(acquired.run_blocks, keys.size());
  ExpectReads(acquired.lease, keys);
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

// A shard may know more key spaces than one tenant may have at a time: those that it had once.
TEST_F(KeptTest, KeySpacesOfWhichNothingIsLeftAreNoTrouble) {
  for (uint32_t i = 0; i < limits::kSpecsPerTenantMax + 100; ++i) {
    const AttachmentId who = Attach("default");
    CacheSpec spec = SmallSpec(4, 1);
    spec.scope = absl::StrCat(i);
    const SpecHandle handle = Open(who, spec);
    const auto keys = ChainNamed("one", 1);
    ASSERT_TRUE(Store(who, spec, {.spec = handle, .keys = keys}).status.ok());
    ASSERT_TRUE(
        engine_->Hint(who, {.spec = handle, .keys = keys, .hint = {.verb = HintVerb::kDemote}})
            .ok());
    if (i % 64 == 0) AwaitJournal();
    ASSERT_EQ(engine_->Remove(who, handle, keys)->removed, 1u);
    engine_->Detach(who);
  }
  Fill(0, 1);
  Save();
  Crash();
  ExpectStored(0, 1);
}

TEST_F(KeptTest, ADamagedJournalCostsWhatItSaysAfterTheDamage) {
  Fill(0, 2);
  Save();
  engine_ = nullptr;
  const auto bytes = std::filesystem::file_size(PathOf("journal"));
  std::filesystem::resize_file(PathOf("journal"), bytes / 2);
  Begin();
  ExpectSound();
  EXPECT_FALSE(Disk().clean);
  for (size_t i = 0; i < 2; ++i) {
    const uint32_t run = Run(Chain(i));
    if (run > 0) ExpectStored(First(Chain(i), run));
  }
  Fill(10, 2);
  ExpectStored(10, 2);
}

}  // namespace
}  // namespace reprise::shard
