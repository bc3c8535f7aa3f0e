// A disk that is kept over restarts, and processes that are killed: what their journal said last is
// what the next one begins with, and nobody gets any of it before it was checked.
#include <filesystem>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/service/shard/kept_fixture.h"

namespace reprise::shard {
namespace {

using ::testing::ElementsAre;

TEST_F(KilledTest, WhatWasWhollyOnTheDiskIsBack) {
  Fill(0, kFillDram + 4);
  Crash();
  EXPECT_FALSE(Disk().clean);
  EXPECT_EQ(Disk().restored_blocks, 4 * kLength);
  EXPECT_EQ(Disk().to_scrub_blocks, 0u);
  EXPECT_EQ(CounterValue("scrubbed_blocks_total"), 4 * kLength);
  ExpectStored(0, 4);
  EXPECT_EQ(Run(Chain(4)), 0u);
}

TEST_F(KilledTest, NobodyGetsABlockBeforeItWasChecked) {
  Fill(0, kFillDram + 4);
  CrashUnchecked();
  EXPECT_EQ(Disk().to_scrub_blocks, 4 * kLength);
  EXPECT_EQ(Disk().waiting_blocks, 4 * kLength);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(Run(Chain(i)), 0u);
  const auto explained =
      engine_->Explain(Tenant{"default"}, FingerprintOf(kSpec), Chain(0), /*token_ids=*/{});
  EXPECT_EQ(explained->reason, MissReason::kPending);
  EXPECT_THAT(explained->sentence, ::testing::HasSubstr("still to be read and checked"));
  // Who needs it now writes it anew, and has it.
  ASSERT_EQ(Store(Chain(0)).commit.committed, kLength);
  ExpectStored(0, 1);
  engine_->Scrub();
  ExpectSound();
  ExpectStored(0, 4);
  EXPECT_EQ(CounterValue("unadopted_blocks_total"), kLength);
}

TEST_F(KilledTest, TheBackgroundChecksWithoutBeingAsked) {
  Fill(0, kFillDram + 4);
  AwaitJournal();
  Abandon();
  ShardEngineOptions options = OptionsOf(Config());
  options.background_scrub = true;
  StartWith(std::move(options));
  EXPECT_TRUE(reprise::testing::Soon([&] { return Disk().to_scrub_blocks == 0; }));
  ExpectSound();
  ExpectStored(0, 4);
}

// The journal may be behind: by then the place was another tenant's, and has its bytes.
TEST_F(KilledTest, ATenantNeverReadsWhatAnotherOnePutInItsFormerPlace) {
  Fill(0, kFillDisk);
  Save();
  AwaitJournal();
  const std::string journal = PathOf("journal");
  std::filesystem::copy(journal, folder_ + "/before");
  for (size_t i = 0; i < kFillDisk; ++i) {
    ASSERT_EQ(engine_->Remove(me_, spec_, Chain(i))->removed, kLength);
  }
  const AttachmentId other = Attach("other");
  const SpecHandle other_spec = Open(other, kSpec);
  for (size_t i = 0; i < kFillDisk; ++i) {
    ASSERT_TRUE(
        Store(other, kSpec, {.spec = other_spec, .keys = ChainNamed(absl::StrCat("o", i), kLength)})
            .status.ok());
  }
  Save();
  Abandon();
  std::filesystem::rename(folder_ + "/before", PathOf("journal"));
  Begin();
  EXPECT_EQ(Disk().restored_blocks, kFillDisk * kLength);
  for (size_t i = 0; i < kFillDisk; ++i) EXPECT_EQ(Run(Chain(i)), 0u) << i;
  engine_->Scrub();
  ExpectSound();
  for (size_t i = 0; i < kFillDisk; ++i) EXPECT_EQ(Run(Chain(i)), 0u) << i;
  EXPECT_EQ(Disk().waiting_blocks, 0u);
  EXPECT_EQ(CounterValue("quarantined_blocks_total"), kFillDisk * kLength);
}

TEST_F(KilledTest, BothTenantsBlocksComeBackAsTheirOwn) {
  const AttachmentId other = Attach("other");
  const SpecHandle other_spec = Open(other, kSpec);
  ASSERT_TRUE(Store(other, kSpec, {.spec = other_spec, .keys = Chain(0)}).status.ok());
  Fill(1, 1);
  Save();
  Crash();
  EXPECT_EQ(Run(Chain(0)), 0u);
  ExpectStored(1, 1);
  const AttachmentId again = Attach("other");
  const SpecHandle spec = Open(again, kSpec);
  EXPECT_EQ(Run(again, spec, Chain(1)), 0u);
  const auto acquired = engine_->Acquire(again, {.spec = spec, .keys = Chain(0)});
  ASSERT_EQ(acquired->run_blocks, kLength);
}

TEST_F(KilledTest, WhatWasWrittenToTheDiskAtOnceIsBackToo) {
  Fill(0, kFillDram);
  std::vector<LeaseId> leases;  // memory is full, and all of it is read
  for (size_t i = 0; i < kFillDram; ++i) leases.push_back(Acquire(Chain(i)).lease);
  Fill(50, 2);
  ASSERT_THAT(TiersOf(Chain(50)), ElementsAre(Nvme(kLength)));
  Crash();
  EXPECT_EQ(Disk().restored_blocks, 2 * kLength);
  ExpectStored(50, 2);
}

TEST_F(KilledTest, WhatMovedOnTheDiskIsFoundWhereItIs) {
  // Every other chain of a full disk leaves; somebody else takes an extent, and what is left moves
  // together for it.
  Fill(0, kFillDisk);
  Save();
  for (size_t i = 0; i < kFillDisk; i += 2) {
    ASSERT_TRUE(engine_->Remove(me_, spec_, {{Chain(i)[0]}}).ok());
  }
  AwaitJournal();
  const AttachmentId other = Attach("other");
  const SpecHandle other_spec = Open(other, kSpec);
  const auto keys = ChainNamed("of another tenant", 4);
  ASSERT_EQ(Store(other, kSpec, {.spec = other_spec, .keys = keys}).commit.committed, 4u);
  Save();
  ASSERT_GT(CounterValue("moved_blocks_total"), 0u);
  Crash();
  EXPECT_EQ(Disk().restored_blocks, kFillDisk / 2 * kLength + 4);
  EXPECT_EQ(CounterValue("quarantined_blocks_total"), 0u);
  for (size_t i = 1; i < kFillDisk; i += 2) ExpectStored(i, 1);
}

TEST_F(KilledTest, WhatWasRemovedStaysSoWheneverTheProcessIsKilled) {
  Fill(0, 4);
  Save();
  AwaitJournal();
  ASSERT_EQ(engine_->Remove(me_, spec_, Chain(1))->removed, kLength);
  Abandon();  // at once
  Begin();
  engine_->Scrub();
  EXPECT_EQ(Run(Chain(1)), 0u);
  ExpectStored(2, 2);
}

TEST_F(KilledTest, WhatWasUsedLongestAgoStillGoesFirst) {
  Fill(0, kFillDisk);
  for (size_t i = 0; i < kFillDisk; i += 2) ExpectStored(i, 1);  // the odd ones are colder
  Save();
  Crash();
  ExpectStored(kFillDisk - 1, 1);  // but for this one, now
  Fill(100, kFillDram + 4);        // as many chains as fill memory, and four more
  for (size_t i = 0; i < kFillDisk; i += 2) EXPECT_EQ(Run(Chain(i)), kLength) << i;
  for (const size_t i : {1, 3, 5, 7}) EXPECT_EQ(Run(Chain(i)), 0u) << i;
  ExpectStored(kFillDisk - 1, 1);
}

TEST_F(KilledTest, BytesThatAreNotWhatTheJournalSaysAreFoundAndGo) {
  Fill(0, kFillDram + 4);
  const SlotRef slot = SlotOf(Chain(1)[4]);
  Abandon();
  Damage(slot);
  Begin();
  engine_->Scrub();
  ExpectSound();
  EXPECT_EQ(Run(Chain(1)), 4u);
  ExpectStored(First(Chain(1), 4));
  EXPECT_EQ(CounterValue("quarantined_blocks_total"), 1u);
  for (const size_t i : {0, 2, 3}) ExpectStored(Chain(i));
}

TEST_F(KilledTest, AProcessThatEndedInOrderIsBelieved) {
  Fill(0, 2);
  Save();
  Restart();
  EXPECT_EQ(Disk().to_scrub_blocks, 0u);
  ExpectStored(0, 2);
  // And one that was killed after that is not.
  CrashUnchecked();
  EXPECT_FALSE(Disk().clean);
  EXPECT_EQ(Disk().to_scrub_blocks, 2 * kLength);
}

TEST_F(KilledTest, WhatWasNotCheckedBeforeAStopIsCheckedAfterIt) {
  Fill(0, 4);
  Save();
  const SlotRef slot = SlotOf(Chain(1)[4]);
  Abandon();
  Damage(slot);
  Begin();
  Restart();  // in order, and nothing was checked
  EXPECT_FALSE(Disk().clean);
  EXPECT_EQ(Run(Chain(1)), 0u);
  engine_->Scrub();
  EXPECT_EQ(Run(Chain(1)), 4u);
  Restart();
  EXPECT_TRUE(Disk().clean);
  EXPECT_EQ(Run(Chain(1)), 4u);
  ExpectStored(2, 2);
}

// Stores, reads, removals, moves to the disk, stops and kills, at random; and whatever is found at
// any time is right. Prompts of one time have beginnings in common, and go out of use together.
TEST_F(KilledTest, WhateverComesBackIsWhatWasStored) {
  const uint32_t seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937 random(seed);
  const auto any = [&](size_t below) { return random() % below; };
  const auto prompt = [&](int time) {
    const size_t number = any(12);
    const auto head = ChainNamed(absl::StrCat("time ", time, " head ", number % 2), 3);
    return Branch(head, absl::StrCat("time ", time, " prompt ", number), 2 + number);
  };
  uint64_t restored = 0, adopted = 0;
  for (int step = 0; step < 600; ++step) {
    const int now = step / 60;
    const std::vector<BlockKey> keys = prompt(now);
    switch (any(20)) {
      case 0:
        ASSERT_TRUE(engine_->Remove(me_, spec_, {{keys.back()}}).ok());
        break;
      case 1:
        Demote(keys);
        break;
      case 2:
        if (any(4) == 0) Save();
        adopted += CounterValue("adopted_blocks_total");
        any(3) == 0 ? Restart() : Crash();
        restored += Disk().restored_blocks;
        break;
      case 3:
        adopted += CounterValue("adopted_blocks_total");
        Abandon();  // in the middle of whatever the journal is about to say
        Begin();
        ExpectSound();
        if (any(2) == 0) engine_->Scrub();
        ExpectSound();
        break;
      case 4:
        engine_->Scrub();
        break;
      case 5:
      case 6:
      case 7: {
        const std::vector<BlockKey> asked = any(2) == 0 ? keys : prompt(any(now + 1));
        const uint32_t run = Run(asked);
        if (run > 0) ExpectStored(First(asked, run));
        break;
      }
      default:
        ASSERT_TRUE(Store(keys).status.ok());
    }
    if (HasFatalFailure()) return;
  }
  ExpectSound();
  EXPECT_GT(restored, 0u);
  EXPECT_GT(adopted, 0u);
}

}  // namespace
}  // namespace reprise::shard
