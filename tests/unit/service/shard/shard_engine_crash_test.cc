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
  void AwaitScrub() {
    EXPECT_TRUE(reprise::testing::Soon([&] { return Disk().to_scrub_blocks == 0; }));
  }
};

TEST_F(KilledTest, WhatWasWhollyOnTheDiskIsBack) {
  Fill(0, kFillDram + 4);
  Crash();
  EXPECT_FALSE(Disk().clean);
  EXPECT_EQ(Disk().restored_blocks, 4 * kLength);
  ExpectStored(0, 4);
  EXPECT_EQ(Run(Chain(4)), 0u);
  AwaitScrub();
  ExpectStored(0, 4);
}

TEST_F(KilledTest, EndsOfChainsWaitForTheirBeginningsAndAreStoredWithThem) {
  const auto head = ChainNamed("system prompt", 4);
  const auto chains = TailsUnder(head, 3);
  Crash();
  EXPECT_EQ(Disk().waiting_blocks, 3 * 4u);
  for (const auto& chain : chains) EXPECT_EQ(Run(chain), 0u);
  // Whoever computes the head again brings all of them back.
  ASSERT_EQ(Store(head).commit.committed, 4u);
  ExpectSound();
  EXPECT_EQ(Disk().waiting_blocks, 0u);
  EXPECT_EQ(CounterValue("adopted_blocks_total"), 3 * 4u);
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
  EXPECT_EQ(Store(chains[0]).commit.committed, 8u);
  ExpectSound();
  EXPECT_EQ(Disk().waiting_blocks, 0u);
  EXPECT_EQ(CounterValue("adopted_blocks_total"), 4u);
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

TEST_F(KilledTest, BytesThatAreNotWhatTheJournalSaysAreFoundAndGo) {
  Fill(0, kFillDram + 4);
  AwaitJournal();
  SlotRef bad;
  for (const KeptBlock& block : Journaled()) {
    if (block.key == Chain(1)[4]) bad = block.slot;
  }
  Abandon();
  {
    std::fstream file(PathOf("blocks"), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(bad.extent * 2 * kMiB + bad.index * kBlockBytes + 5));
    file.put('\x55');
    file.put('\x55');
  }
  Begin();
  AwaitScrub();
  ExpectSound();
  EXPECT_EQ(Run(Chain(1)), 4u);
  ExpectStored(First(Chain(1), 4));
  EXPECT_EQ(CounterValue("quarantined_blocks_total"), 1u);
  for (const size_t i : {0, 2, 3}) ExpectStored(Chain(i));
}

TEST_F(KilledTest, AWaitingBlockOfWrongBytesIsNotWaitedFor) {
  const auto head = ChainNamed("system prompt", 4);
  const auto chains = TailsUnder(head, 1);
  AwaitJournal();
  SlotRef bad;
  for (const KeptBlock& block : Journaled()) {
    if (block.key == chains[0][6]) bad = block.slot;
  }
  Abandon();
  {
    std::fstream file(PathOf("blocks"), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(bad.extent * 2 * kMiB + bad.index * kBlockBytes));
    file << "nonsense";
  }
  Begin();
  AwaitScrub();
  ASSERT_TRUE(Store(head).status.ok());
  ExpectSound();
  EXPECT_EQ(Run(chains[0]), 6u);
}

TEST_F(KilledTest, AProcessThatEndedInOrderIsBelieved) {
  Fill(0, 2);
  Save();
  Restart();
  EXPECT_EQ(Disk().to_scrub_blocks, 0u);
  // And one that was killed after that is not.
  Crash();
  EXPECT_FALSE(Disk().clean);
  AwaitScrub();
  ExpectStored(0, 2);
}

// Stores, reads, removals, moves to the disk, stops and kills, at random; and whatever is found at
// any time is right.
TEST_F(KilledTest, WhateverComesBackIsWhatWasStored) {
  const uint32_t seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937 random(seed);
  const auto any = [&](size_t below) { return random() % below; };
  std::vector<std::vector<BlockKey>> chains;
  for (size_t i = 0; i < 40; ++i) {
    chains.push_back(i < 4 || any(3) == 0 ? ChainNamed(absl::StrCat("root ", i), 1 + any(10))
                                          : Branch(First(chains[any(i)], 1),
                                                   absl::StrCat("branch ", i), 1 + any(9)));
  }
  uint64_t restored = 0, adopted = 0;
  for (int step = 0; step < 400; ++step) {
    const std::vector<BlockKey>& keys = chains[any(chains.size())];
    switch (any(16)) {
      case 0:
        ASSERT_TRUE(engine_->Remove(me_, spec_, {{keys.back()}}).ok());
        break;
      case 1:
      case 2:
      case 3:
        Demote(keys);
        break;
      case 4: {
        if (step % 4 == 0) Save();
        adopted += CounterValue("adopted_blocks_total");
        any(2) == 0 ? Restart() : Crash();
        restored += Disk().restored_blocks;
        break;
      }
      case 5: {
        adopted += CounterValue("adopted_blocks_total");
        Abandon();  // in the middle of whatever the journal is about to say
        Begin();
        ExpectSound();
        // What it said last may be wrong until it was read.
        AwaitScrub();
        ExpectSound();
        break;
      }
      case 6:
      case 7:
      case 8: {
        const uint32_t run = Run(keys);
        if (run > 0) ExpectStored(First(keys, run));
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
