#include "tests/unit/service/shard/engine_fixture.h"

namespace reprise::shard {
namespace {

class Chains : public EngineTest {
 protected:
  void StoreNamed(const std::string& name, size_t blocks) {
    ASSERT_TRUE(Store(ChainNamed(name, blocks)).status.ok());
    ASSERT_EQ(Run(ChainNamed(name, blocks)), blocks);
  }
  // By their last blocks.
  std::vector<BlockKey> Lasts() {
    std::vector<BlockKey> lasts;
    for (const ChainEnd& end : engine_->Chains()) lasts.push_back(end.last);
    return lasts;
  }
};

TEST_F(Chains, TheOneUsedLastComesFirst) {
  StoreNamed("a", 3);
  StoreNamed("b", 4);
  StoreNamed("c", 2);
  const auto a = ChainNamed("a", 3), b = ChainNamed("b", 4), c = ChainNamed("c", 2);
  EXPECT_THAT(Lasts(), ::testing::ElementsAre(c.back(), b.back(), a.back()));
  engine_->Release(me_, {{Acquire(a).lease}}).IgnoreError();
  EXPECT_THAT(Lasts(), ::testing::ElementsAre(a.back(), c.back(), b.back()));
  EXPECT_EQ(engine_->Chains()[0].first, a.front());
}

TEST_F(Chains, WhatIsAnotherOnesBeginningIsNotListed) {
  StoreNamed("a", 3);
  StoreNamed("a", 6);
  EXPECT_THAT(Lasts(), ::testing::ElementsAre(ChainNamed("a", 6).back()));
  // A branch has an end of its own.
  std::vector<BlockKey> branch = ChainNamed("a", 3);
  branch.push_back(KeyNamed("another turn"));
  EXPECT_EQ(Store(branch).commit.committed, 1u);
  EXPECT_THAT(Lasts(), ::testing::ElementsAre(branch.back(), ChainNamed("a", 6).back()));
}

TEST_F(Chains, AllOfAChainIsToldWithItsSessionAndTokens) {
  const auto keys = ChainNamed("a", 3);
  std::vector<uint32_t> tokens(3 * kSpec.block_tokens);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<uint32_t>(i);
  Store(me_, kSpec, {.spec = spec_, .keys = keys, .session_id = "user-1", .token_ids = tokens});
  const auto chain = engine_->ChainTo(engine_->Chains().at(0));
  ASSERT_TRUE(chain.has_value());
  EXPECT_EQ(chain->tenant, Tenant{"default"});
  EXPECT_EQ(chain->spec, kSpec);
  EXPECT_EQ(chain->session_id, "user-1");
  EXPECT_EQ(chain->keys, keys);
  EXPECT_EQ(chain->token_ids, tokens);
  EXPECT_EQ(chain->first_new, 0u);
}

TEST_F(Chains, OneThatWentSinceIsNotTold) {
  StoreNamed("a", 3);
  const ChainEnd end = engine_->Chains().at(0);
  ASSERT_TRUE(engine_->Remove(me_, spec_, ChainNamed("a", 3)).ok());
  EXPECT_FALSE(engine_->ChainTo(end).has_value());
  EXPECT_TRUE(engine_->Chains().empty());
}

TEST_F(Chains, BlocksThatAreOnlyReservedAreNoChain) {
  ASSERT_TRUE(engine_->Reserve(me_, {.spec = spec_, .keys = ChainNamed("a", 2)}).ok());
  EXPECT_TRUE(engine_->Chains().empty());
}

// ---- Room that nothing has to go for

TEST_F(Chains, SpareRoomIsTakenWithoutDroppingAnything) {
  // 64 slots; background eviction would begin above 60.
  StoreNamed("old", 50);
  const auto stored =
      Store(me_, kSpec, {.spec = spec_, .keys = ChainNamed("new", 30), .spare_room = true});
  ASSERT_TRUE(stored.status.ok()) << stored.status;
  EXPECT_EQ(Run(ChainNamed("old", 50)), 50u);
  const uint32_t run = Run(ChainNamed("new", 30));
  EXPECT_GE(run, 7u);
  EXPECT_LE(run, 9u) << "up to the low watermark";
  engine_->EvictToWatermark();
  EXPECT_EQ(Run(ChainNamed("old", 50)), 50u) << "and nothing goes for it later";
  EXPECT_EQ(Run(ChainNamed("new", 30)), run);
}

TEST_F(Chains, WithoutSpareRoomItIsRefused) {
  StoreNamed("old", 62);
  const auto refused =
      engine_->Reserve(me_, {.spec = spec_, .keys = ChainNamed("new", 2), .spare_room = true});
  EXPECT_EQ(CodeAndReason(refused.status()), "RESOURCE_EXHAUSTED NO_SPACE") << refused.status();
  EXPECT_EQ(Run(ChainNamed("old", 62)), 62u);
  EXPECT_TRUE(engine_->Reserve(me_, {.spec = spec_, .keys = ChainNamed("new", 4)}).ok());
}

TEST_F(Chains, OnTwoTiersSpareRoomIsThatOfEither) {
  StartTiered(4 * kMiB, 4 * kMiB);
  StoreNamed("old", 62);
  const auto stored =
      Store(me_, kSpec, {.spec = spec_, .keys = ChainNamed("new", 30), .spare_room = true});
  ASSERT_TRUE(stored.status.ok()) << stored.status;
  EXPECT_EQ(Run(ChainNamed("new", 30)), 30u);
  EXPECT_EQ(CounterValue("demoted_blocks_total"), 0u);
}

}  // namespace
}  // namespace reprise::shard
