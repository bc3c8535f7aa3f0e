#include "tests/unit/service/shard/engine_fixture.h"

namespace reprise::shard {
namespace {

using Removing = EngineTest;

TEST_F(Removing, ABlockTakesAllBeneathItAlong) {
  const std::vector<BlockKey> chain = ChainNamed("a", 4);
  std::vector<BlockKey> branch = {chain[0], chain[1], KeyNamed("b2"), KeyNamed("b3")};
  Store(chain);
  Store(branch);
  const auto removed = engine_->Remove(me_, spec_, {{chain[1]}});
  ASSERT_TRUE(removed.ok());
  EXPECT_EQ(removed->removed, 5u);
  EXPECT_EQ(removed->leased, 0u);
  EXPECT_EQ(Run(chain), 1u);
  EXPECT_EQ(UsedBytes(), kBlockBytes);
  EXPECT_EQ(CounterValue("removed_blocks_total"), 5u);
}

TEST_F(Removing, LeasedBlocksAndWhatTheyHangFromStay) {
  const std::vector<BlockKey> chain = ChainNamed("a", 4);
  Store(chain);
  const LeaseId lease = Acquire({chain.begin(), chain.begin() + 2}).lease;
  for (const std::vector<BlockKey>& keys :
       {chain, std::vector<BlockKey>(chain.rbegin(), chain.rend())}) {
    const auto removed = engine_->Remove(me_, spec_, keys);
    ASSERT_TRUE(removed.ok());
    EXPECT_EQ(removed->leased, 2u);
  }
  EXPECT_EQ(Run(chain), 2u);
  ExpectReads(lease, {chain.begin(), chain.begin() + 2});
  engine_->Release(me_, {{lease}}).IgnoreError();
  EXPECT_EQ(engine_->Remove(me_, spec_, chain)->removed, 2u);
  EXPECT_EQ(UsedBytes(), 0u);
}

TEST_F(Removing, ALeaseOnATailKeepsTheBlocksBeforeIt) {
  const std::vector<BlockKey> chain = ChainNamed("a", 3);
  Store(chain);
  ASSERT_TRUE(engine_->Acquire(me_, {.spec = spec_, .keys = chain, .first_block = 2}).ok());
  EXPECT_EQ(engine_->Remove(me_, spec_, {{chain[0]}})->leased, 3u);
  EXPECT_EQ(Run(chain), 3u);
}

TEST_F(Removing, UnknownKeysAreNotCounted) {
  const auto removed = engine_->Remove(me_, spec_, ChainNamed("never", 3));
  ASSERT_TRUE(removed.ok());
  EXPECT_EQ(removed->removed + removed->leased, 0u);
}

TEST_F(Removing, WhatWasRemovedCanBeStoredAgain) {
  const std::vector<BlockKey> chain = ChainNamed("a", 3);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(Store(chain).commit.committed, 3u);
    ExpectReads(Acquire(chain, absl::Seconds(1)).lease, chain);
    clock_.Advance(absl::Seconds(2));
    EXPECT_EQ(engine_->Remove(me_, spec_, chain)->removed, 3u);
  }
}

class Quarantining : public EngineTest {
 protected:
  void Quarantine(const BlockKey& key) {
    engine_->Quarantine(Tenant{"default"}, FingerprintOf(kSpec), key, "test");
  }
};

TEST_F(Quarantining, HidesTheBlockAndAllBeneathItAndKeepsItsSlotOutOfUse) {
  const std::vector<BlockKey> chain = ChainNamed("a", 4);
  Store(chain);
  Quarantine(chain[1]);
  EXPECT_EQ(Run(chain), 1u);
  EXPECT_EQ(UsedBytes(), 2 * kBlockBytes);
  EXPECT_EQ(CounterValue("quarantined_blocks_total"), 1u);
  EXPECT_EQ(Store(chain).commit.committed, 3u);
  EXPECT_EQ(UsedBytes(), 5 * kBlockBytes);
}

TEST_F(Quarantining, ALeaseHolderIsRefusedTheBlockAndMayReadTheOthers) {
  const std::vector<BlockKey> chain = ChainNamed("a", 3);
  Store(chain);
  const LeaseId lease = Acquire(chain).lease;
  Quarantine(chain[1]);
  EXPECT_EQ(CodeAndReason(engine_->OpenRead(me_, lease, 0, 0).status()),
            "NOT_FOUND BLOCK_QUARANTINED");
  const auto last = engine_->OpenRead(me_, lease, 2, 1);
  ASSERT_TRUE(last.ok());
  EXPECT_TRUE(HasContent(chain[2], kSeed, (*last)[0].bytes));
}

TEST_F(Quarantining, UnknownBlocksAreIgnored) {
  Quarantine(KeyNamed("never"));
  engine_->Quarantine(Tenant{"nobody"}, FingerprintOf(kSpec), KeyNamed("never"), "test");
  EXPECT_EQ(CounterValue("quarantined_blocks_total"), 0u);
}

TEST_F(Quarantining, HeldBackSlotsAreBounded) {
  Start(32 * kMiB);  // 512 slots
  for (size_t i = 0; i < 2 * limits::kQuarantinedSlotsMax; ++i) {
    const std::vector<BlockKey> chain = ChainNamed(absl::StrCat("c", i), 1);
    ASSERT_EQ(Store(chain).commit.committed, 1u);
    Quarantine(chain[0]);
  }
  EXPECT_EQ(UsedBytes(), limits::kQuarantinedSlotsMax * kBlockBytes);
}

}  // namespace
}  // namespace reprise::shard
