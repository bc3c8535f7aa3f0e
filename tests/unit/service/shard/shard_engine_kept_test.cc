// A disk that is kept over restarts, and processes that end in order: the next one has what the
// last one had, as it was.
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/service/shard/kept_fixture.h"

namespace reprise::shard {
namespace {

using ::testing::ElementsAre;

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

TEST_F(KeptTest, MemoryOfADeviceIsSavedToo) {
  control_ = std::make_shared<reprise::testing::HostHbmControl>();
  control_->guarded = true;
  Restart({.hbm_bytes = 4 * kMiB});
  Fill(0, kFillDram);
  ASSERT_THAT(TiersOf(Chain(0)), ElementsAre(Hbm(kLength)));
  EXPECT_EQ(Save(), 0u);
  EXPECT_THAT(TiersOf(Chain(0)), ElementsAre(Nvme(kLength)));
  Restart();
  ExpectStored(0, kFillDram);
}

TEST_F(KeptTest, NothingIsSavedWithoutADiskThatIsKept) {
  ShardEngineOptions options = OptionsOf(Config());
  options.nvme_keep = false;
  options.nvme_key = nullptr;
  StartWith(std::move(options));
  Fill(0, 2);
  EXPECT_EQ(Save(), 2 * kLength);
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

TEST_F(KeptTest, WatchersHearOfWhatIsStoredNowNotOfWhatCameBack) {
  Fill(0, 2);
  Save();
  Restart();
  const auto watch = *engine_->Watch();
  size_t snapshot = 0;
  while (true) {
    const auto event = *watch->Next(absl::InfinitePast());
    ASSERT_TRUE(event.has_value());
    if (event->kind == BlockEvent::Kind::kSnapshotEnd) break;
    snapshot += event->keys.size();
  }
  EXPECT_EQ(snapshot, 2 * kLength);
  Fill(2, 1);
  std::vector<BlockKey> heard;
  while (const auto event = *watch->Next(absl::InfinitePast())) {
    heard.insert(heard.end(), event->keys.begin(), event->keys.end());
  }
  EXPECT_EQ(heard, Chain(2));
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

}  // namespace
}  // namespace reprise::shard
