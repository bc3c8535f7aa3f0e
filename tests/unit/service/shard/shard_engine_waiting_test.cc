// What a kept disk has of chains whose beginnings are not stored: it waits for them, is stored with
// them, and is the first to go.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/service/shard/kept_fixture.h"

namespace reprise::shard {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

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
    // One event is of one chain, without a gap.
    const std::vector<BlockKey>& keys = (*event)->keys;
    EXPECT_TRUE(std::any_of(chains.begin(), chains.end(), [&](const std::vector<BlockKey>& chain) {
      return std::search(chain.begin(), chain.end(), keys.begin(), keys.end()) != chain.end();
    }));
    heard.insert(heard.end(), keys.begin(), keys.end());
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

TEST_F(KilledTest, WatchersHearOfItOnceAndOfEachSessionApart) {
  const auto head = ChainNamed("system prompt", 2);
  const auto first = Branch(head, "first", 2), all = Branch(first, "second", 2);
  ASSERT_TRUE(Store(head).status.ok());
  for (const auto& [keys, session] : {std::pair(first, "s1"), std::pair(all, "s2")}) {
    ASSERT_TRUE(
        Store(me_, kSpec, {.spec = spec_, .keys = keys, .session_id = session}).status.ok());
  }
  const Hint demote{.verb = HintVerb::kDemote, .first_block = 2};
  ASSERT_EQ(engine_->Hint(me_, {.spec = spec_, .keys = all, .hint = demote})->blocks, 4u);
  Crash();
  ASSERT_EQ(Disk().waiting_blocks, 4u);
  const auto watch = *engine_->Watch();
  ASSERT_TRUE(Store(head).status.ok());
  ASSERT_TRUE(Store(Chain(0)).status.ok());
  std::vector<std::pair<std::string, std::vector<BlockKey>>> heard;
  while (const auto event = *watch->Next(absl::InfinitePast())) {
    if (event->kind == BlockEvent::Kind::kStored)
      heard.emplace_back(event->session_id, event->keys);
  }
  const std::vector<BlockKey> of_first(all.begin() + 2, all.begin() + 4);
  const std::vector<BlockKey> of_second(all.begin() + 4, all.end());
  EXPECT_THAT(heard, ElementsAre(Pair("", head), Pair("s1", of_first), Pair("s2", of_second),
                                 Pair("", Chain(0))));
}

TEST_F(KilledTest, ABlockThatIsStoredUnderAnotherOneIsNotStoredTwice) {
  const auto head = ChainNamed("system prompt", 4);
  const auto chain = TailsUnder(head, 1)[0];
  Crash();
  const std::vector<BlockKey> elsewhere = {KeyNamed("another prompt"), chain[4]};
  ASSERT_EQ(Store(elsewhere).commit.committed, 2u);
  ASSERT_EQ(Store(head).commit.committed, 4u);
  ExpectSound();
  ExpectStored(elsewhere);
  ExpectStored(head);
  EXPECT_EQ(CounterValue("adopted_blocks_total"), 0u);
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

TEST_F(KilledTest, WhatWaitsWaitsOnOverAnotherRestart) {
  const auto head = ChainNamed("system prompt", 4);
  const auto chains = TailsUnder(head, 3);
  Crash();
  Restart();
  EXPECT_EQ(Disk().waiting_blocks, 3 * 4u);
  ASSERT_TRUE(Store(head).status.ok());
  for (const auto& chain : chains) ExpectStored(chain);
}

TEST_F(KilledTest, WhatWaitsStaysAsColdAsItWasOverRestarts) {
  TailsUnder(ChainNamed("system prompt", 4), 8);
  AwaitJournal();
  std::vector<BlockKey> before;
  RestartWith([&](KeptContents& contents) {
    std::erase_if(contents.blocks, [](const KeptBlock& block) { return block.depth < 4; });
    for (const KeptBlock& block : contents.blocks) before.push_back(block.key);
  });
  ASSERT_EQ(Disk().waiting_blocks, 8 * 4u);
  for (int process = 0; process < 2; ++process) {
    std::vector<BlockKey> now;
    for (const KeptBlock& block : Journaled()) now.push_back(block.key);
    EXPECT_EQ(now, before);
    Restart();
  }
}

TEST_F(KilledTest, WhatIsStoredIsMoreToKeepThanWhatWaits) {
  TailsUnder(ChainNamed("system prompt", 4), 3);
  Crash();
  Fill(100, 2);
  Save();
  TenantQuotas quotas;
  quotas.default_bytes = 2 * kLength * kBlockBytes;
  Restart({.quotas = quotas});
  EXPECT_EQ(Disk().waiting_blocks, 0u);
  ExpectStored(100, 2);
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

TEST_F(KilledTest, WhatWaitsAndLeavesIsGoneForTheNextProcess) {
  TailsUnder(ChainNamed("system prompt", 4), 3);
  TenantQuotas quotas;
  quotas.default_bytes = 20 * kBlockBytes;
  Crash({.quotas = quotas});
  const uint64_t waiting = Disk().waiting_blocks;
  ASSERT_GT(waiting, 0u);
  Fill(100, 2);
  const uint64_t left = Disk().waiting_blocks;
  ASSERT_LT(left, waiting);
  EXPECT_EQ(CounterValue("unadopted_blocks_total"), waiting - left);
  AwaitJournal();
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

// The disk is full of what waits, of two tenants.
TEST_F(KilledTest, WhatWaitsOfWhoNeedsRoomGoesFirst) {
  const auto chains = TailsUnder(ChainNamed("system prompt", 4), 1);
  AwaitJournal();
  RestartWith([&](KeptContents& contents) {
    contents.spaces.resize(1);
    KeptSpace others = contents.spaces.front();
    others.number += 1000;
    others.tenant = Tenant{"other"};
    contents.spaces.push_back(others);
    const KeptBlock one = contents.blocks.front();
    contents.blocks.clear();
    for (uint32_t i = 0; i < 4 * 32; ++i) {
      KeptBlock block = one;
      block.space = contents.spaces[i / 64].number;
      block.slot = {i / 32, i % 32};
      block.key = KeyNamed(absl::StrCat("waits ", i));
      block.parent = KeyNamed("never stored");
      block.depth = 1;
      contents.blocks.push_back(block);
    }
  });
  ASSERT_EQ(Disk().waiting_blocks, 4 * 32u);
  Fill(0, kFillDram + 2);
  ExpectSound();
  EXPECT_EQ(Disk().waiting_blocks, 4 * 32 - 2 * kLength);
  EXPECT_EQ(engine_->Describe(std::nullopt).tenants.back().used_bytes, 64 * kBlockBytes);
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

// What waits is on every extent of the disk, and another tenant wants one.
TEST_F(KilledTest, RoomToSpareIsNotWhatSomethingWaitsIn) {
  const auto head = ChainNamed("system prompt", 4);
  const auto chains = TailsUnder(head, 2);
  AwaitJournal();
  RestartWith([&](KeptContents& contents) {
    std::erase_if(contents.blocks, [](const KeptBlock& block) { return block.depth < 4; });
    for (KeptBlock& block : contents.blocks) {
      block.slot = {block.depth - 4, block.key == chains[0][block.depth] ? 0u : 1u};
    }
  });
  ASSERT_EQ(Disk().waiting_blocks, 8u);
  Fill(0, kFillDram);
  const AttachmentId other = Attach("other");
  const SpecHandle other_spec = Open(other, kSpec);
  const auto keys = ChainNamed("of another tenant", 4);
  ReserveArgs args{.spec = other_spec, .keys = keys, .spare_room = true};
  EXPECT_EQ(CodeAndReason(Store(other, kSpec, args).status), "RESOURCE_EXHAUSTED NO_SPACE");
  EXPECT_EQ(Disk().waiting_blocks, 8u);
  // Whoever needs it has it: what waits goes before what is stored.
  std::vector<LeaseId> leases;
  for (size_t i = 0; i < kFillDram; ++i) leases.push_back(Acquire(Chain(i)).lease);
  args.spare_room = false;
  EXPECT_EQ(Store(other, kSpec, args).commit.committed, 4u);
  EXPECT_LT(Disk().waiting_blocks, 8u);
  ExpectSound();
}

TEST_F(KilledTest, WhatWaitsOnTheDiskDoesNotGoForRoomInMemory) {
  TailsUnder(ChainNamed("system prompt", 4), 3);
  control_ = std::make_shared<reprise::testing::HostHbmControl>();
  Crash({.hbm_bytes = 4 * kMiB});
  Fill(0, 2 * kFillDram);
  std::vector<LeaseId> leases;  // dram is full, and all of it is read
  for (size_t i = 0; i < kFillDram; ++i) {
    ASSERT_THAT(TiersOf(Chain(i)), ElementsAre(Dram(kLength)));
    leases.push_back(Acquire(Chain(i)).lease);
  }
  Fill(100, 1);
  EXPECT_EQ(Disk().waiting_blocks, 3 * 4u);
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

TEST_F(KilledTest, AnotherTenantAtItsQuotaLosesNothingOfWhatWaits) {
  TailsUnder(ChainNamed("system prompt", 4), 3);
  TenantQuotas quotas;
  quotas.named[Tenant{"other"}] = kLength * kBlockBytes;
  Crash({.quotas = quotas});
  const AttachmentId other = Attach("other");
  const SpecHandle other_spec = Open(other, kSpec);
  for (size_t i = 0; i < 2; ++i) {
    const auto keys = Chain(100 + i);
    ASSERT_EQ(Store(other, kSpec, {.spec = other_spec, .keys = keys}).commit.committed, kLength);
  }
  EXPECT_EQ(Disk().waiting_blocks, 3 * 4u);
}

TEST_F(KilledTest, NothingWaitsOnADiskThatFailed) {
  TailsUnder(ChainNamed("system prompt", 4), 3);
  Crash();
  Fill(100, 1);
  Demote(Chain(100));
  ASSERT_EQ(Disk().waiting_blocks, 3 * 4u);
  LoseDisk(Chain(100));
  engine_->Tick();
  ExpectSound();
  EXPECT_EQ(Disk().waiting_blocks, 0u);
  EXPECT_EQ(CounterValue("unadopted_blocks_total"), 3 * 4u);
}

TEST_F(KilledTest, WhatWaitsOnTheDiskOutlivesADevice) {
  const auto head = ChainNamed("system prompt", 4);
  const auto chains = TailsUnder(head, 3);
  control_ = std::make_shared<reprise::testing::HostHbmControl>();
  Crash({.hbm_bytes = 4 * kMiB});
  Fill(100, 1);
  ASSERT_THAT(TiersOf(Chain(100)), ElementsAre(Hbm(kLength)));
  {
    const AcquireResult acquired = Acquire(Chain(100));
    const auto opened = engine_->OpenRead(me_, acquired.lease, 0, 1);
    control_->lost = true;
    std::vector<uint8_t> bytes(kBlockBytes);
    ASSERT_FALSE(engine_->CopyToHost(opened->front().bytes, bytes).ok());
    engine_->Tick();
  }
  ExpectSound();
  EXPECT_EQ(Run(Chain(100)), 0u);
  EXPECT_EQ(Disk().waiting_blocks, 3 * 4u);
  ASSERT_TRUE(Store(head).status.ok());
  for (const auto& chain : chains) ExpectStored(chain);
}

}  // namespace
}  // namespace reprise::shard
