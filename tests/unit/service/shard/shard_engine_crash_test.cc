// A disk that is kept over restarts, and processes that are killed: what their journal said last is
// what the next one begins with, and what of it is not so is found.
#include <fstream>
#include <random>
#include <utility>

#include "tests/unit/service/shard/kept_fixture.h"

namespace reprise::shard {
namespace {

using ::testing::ElementsAre;

class KilledTest : public KeptTest {
 protected:
  uint32_t Demote(const std::vector<BlockKey>& keys) {
    return engine_->Hint(me_, {.spec = spec_, .keys = keys, .hint = {.verb = HintVerb::kDemote}})
        ->blocks;
  }
  // Tails of conversations on the disk, under a system prompt that stayed in memory.
  std::vector<std::vector<BlockKey>> TailsUnder(const std::vector<BlockKey>& head, size_t count) {
    std::vector<std::vector<BlockKey>> chains;
    for (size_t i = 0; i < count; ++i) {
      chains.push_back(Branch(head, absl::StrCat("conversation ", i), 4));
      EXPECT_TRUE(Store(chains.back()).status.ok());
    }
    // Memory is short: the coldest ends go down, the head that all have in common stays.
    for (size_t i = 0; Run(chains.back()) == head.size() + 4 && i < 100; ++i) {
      const auto tiers = TiersOf(chains.back());
      if (tiers.size() == 2 && tiers[0].blocks == head.size()) break;
      EXPECT_TRUE(Store(ChainNamed(absl::StrCat("filler ", i), 4)).status.ok());
      AcquireAndRelease(head);
    }
    for (const auto& chain : chains) {
      EXPECT_THAT(TiersOf(chain), ElementsAre(Dram(static_cast<uint32_t>(head.size())), Nvme(4)));
    }
    return chains;
  }
  void AcquireAndRelease(const std::vector<BlockKey>& keys) {
    const AcquireResult acquired = Acquire(keys);
    EXPECT_TRUE(engine_->Release(me_, {{acquired.lease}}).ok());
  }
  // Where a block lies on the disk, as the journal says.
  SlotRef SlotOf(const BlockKey& key) {
    AwaitJournal();
    for (const KeptBlock& block : Journaled()) {
      if (block.key == key) return block.slot;
    }
    ADD_FAILURE() << "not there";
    return {};
  }
  // Other bytes are there from now on.
  void Damage(SlotRef slot) {
    std::fstream file(PathOf("blocks"), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(slot.extent * 2 * kMiB + slot.index * kBlockBytes + 5));
    file << "nonsense";
  }
};

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

TEST_F(KilledTest, EndsOfChainsWaitForTheirBeginningsAndAreStoredWithThem) {
  const auto head = ChainNamed("system prompt", 4);
  const auto chains = TailsUnder(head, 3);
  Crash();
  EXPECT_EQ(Disk().waiting_blocks, 3 * 4u);
  for (const auto& chain : chains) EXPECT_EQ(Run(chain), 0u);
  // Whoever computes the head again brings all of them back.
  const uint64_t before = CounterValue("adopted_blocks_total");
  ASSERT_EQ(Store(head).commit.committed, 4u);
  ExpectSound();
  EXPECT_EQ(Disk().waiting_blocks, 0u);
  EXPECT_EQ(CounterValue("adopted_blocks_total") - before, 3 * 4u);
  for (const auto& chain : chains) ExpectStored(chain);
}

TEST_F(KilledTest, WatchersHearOfWhatIsStoredAgainAfterWhatItHangsFrom) {
  const auto head = ChainNamed("system prompt", 4);
  const auto chains = TailsUnder(head, 2);
  Crash();
  const auto watch = engine_->Watch();
  ASSERT_TRUE(watch.ok());
  ASSERT_TRUE(Store(head).status.ok());
  std::vector<BlockKey> heard;
  while (true) {
    const auto event = (*watch)->Next(absl::InfinitePast());
    ASSERT_TRUE(event.ok());
    if (!event->has_value()) break;
    if ((*event)->kind != BlockEvent::Kind::kStored) continue;
    heard.insert(heard.end(), (*event)->keys.begin(), (*event)->keys.end());
  }
  ASSERT_EQ(heard.size(), 4u + 2 * 4);
  EXPECT_EQ(std::vector<BlockKey>(heard.begin(), heard.begin() + 4), head);
  for (const auto& chain : chains) {
    for (size_t i = 1; i < chain.size(); ++i) {
      EXPECT_LT(std::find(heard.begin(), heard.end(), chain[i - 1]),
                std::find(heard.begin(), heard.end(), chain[i]));
    }
  }
}

TEST_F(KilledTest, WhoWritesABlockThatWaitsHasItAndItsBytes) {
  const auto head = ChainNamed("system prompt", 4);
  const auto chains = TailsUnder(head, 2);
  Crash();
  const uint64_t before = CounterValue("adopted_blocks_total");
  EXPECT_EQ(Store(chains[0]).commit.committed, 8u);
  ExpectSound();
  EXPECT_EQ(Disk().waiting_blocks, 0u);
  EXPECT_EQ(CounterValue("adopted_blocks_total") - before, 4u);
  EXPECT_EQ(CounterValue("unadopted_blocks_total"), 4u);
  ExpectStored(chains[0]);
  ExpectStored(chains[1]);
}

TEST_F(KilledTest, WhatWaitsIsTheFirstToGoForRoom) {
  const auto head = ChainNamed("system prompt", 4);
  const auto chains = TailsUnder(head, 3);
  Crash();
  const uint64_t waiting = Disk().waiting_blocks;
  ASSERT_EQ(waiting, 3 * 4u);
  // All of memory and all of the disk.
  Fill(100, kFillDram + kFillDisk);
  ExpectSound();
  EXPECT_EQ(CounterValue("unadopted_blocks_total"), waiting);
  ExpectStored(100, kFillDram + kFillDisk);
}

TEST_F(KilledTest, WhatWaitsGoesWhenTheDiskIsNearlyFull) {
  const auto head = ChainNamed("system prompt", 4);
  TailsUnder(head, 3);
  Crash();
  Fill(100, kFillDram + kFillDisk - 2);
  ASSERT_EQ(Disk().waiting_blocks, 3 * 4u);
  engine_->EvictToWatermark();
  ExpectSound();
  EXPECT_LT(Disk().waiting_blocks, 3 * 4u);
  ExpectStored(100, kFillDram + kFillDisk - 2);
}

TEST_F(KilledTest, ATenantAtItsQuotaLosesWhatWaitsBeforeWhatIsStored) {
  const auto head = ChainNamed("system prompt", 4);
  TailsUnder(head, 3);
  TenantQuotas quotas;
  quotas.default_bytes = 20 * kBlockBytes;
  Crash({.quotas = quotas});
  ASSERT_GT(Disk().waiting_blocks, 0u);
  Fill(100, 2);
  ExpectSound();
  ExpectStored(100, 2);
}

TEST_F(KilledTest, WhatWaitsWaitsOnOverAnotherRestart) {
  const auto head = ChainNamed("system prompt", 4);
  const auto chains = TailsUnder(head, 3);
  Crash();
  Restart();
  EXPECT_EQ(Disk().waiting_blocks, 3 * 4u);
  ASSERT_TRUE(Store(head).status.ok());
  for (const auto& chain : chains) ExpectStored(chain);
}

TEST_F(KilledTest, WhatIsRemovedIsGoneAlsoWhereItWaits) {
  const auto head = ChainNamed("system prompt", 4);
  const auto chains = TailsUnder(head, 3);
  Crash();
  // By a key of its own, by one that it hangs from, and by one beneath it alone.
  EXPECT_EQ(engine_->Remove(me_, spec_, {{chains[0][4]}})->removed, 4u);
  EXPECT_EQ(engine_->Remove(me_, spec_, {{chains[1][6]}})->removed, 2u);
  ExpectSound();
  ASSERT_TRUE(Store(head).status.ok());
  EXPECT_EQ(Run(chains[0]), 4u);
  EXPECT_EQ(Run(chains[1]), 6u);
  EXPECT_EQ(Run(chains[2]), 8u);
  EXPECT_EQ(engine_->Remove(me_, spec_, {{head[0]}})->removed, 4u + 2 + 4);
  EXPECT_EQ(Disk().waiting_blocks, 0u);
}

TEST_F(KilledTest, WhatHangsFromARemovedBlockAndWaitsGoesWithIt) {
  const auto head = ChainNamed("system prompt", 4);
  const auto chains = TailsUnder(head, 2);
  Crash();
  EXPECT_EQ(engine_->Remove(me_, spec_, {{head[3]}})->removed, 2 * 4u);
  EXPECT_EQ(Disk().waiting_blocks, 0u);
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

TEST_F(KilledTest, WhatWaitsOfOthersMakesRoomWhenAnExtentIsTakenFromThem) {
  Fill(0, kFillDisk);
  Save();
  CrashUnchecked();
  ASSERT_EQ(Disk().waiting_blocks, kFillDisk * kLength);
  const AttachmentId other = Attach("other");
  const SpecHandle other_spec = Open(other, kSpec);
  for (size_t i = 0; i < kFillDram + 2; ++i) {
    const auto keys = ChainNamed(absl::StrCat("o", i), kLength);
    ASSERT_EQ(Store(other, kSpec, {.spec = other_spec, .keys = keys}).commit.committed, kLength);
    ExpectSound();
  }
  // No more than it took.
  EXPECT_GE(Disk().waiting_blocks, (kFillDisk - 4) * kLength);
  EXPECT_LT(Disk().waiting_blocks, kFillDisk * kLength);
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

TEST_F(KilledTest, ClaimsDoNotComeBack) {
  Fill(0, 2);
  ASSERT_TRUE(
      engine_
          ->Hint(me_,
                 {.spec = spec_,
                  .keys = Chain(0),
                  .hint = {.verb = HintVerb::kPin, .claim_id = "prompt", .ttl = absl::Minutes(10)}})
          .ok());
  Save();
  Restart();
  ASSERT_EQ(engine_->Describe(std::nullopt).claims.claims, 1u);
  Crash();
  EXPECT_EQ(engine_->Describe(std::nullopt).claims.claims, 0u);
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
