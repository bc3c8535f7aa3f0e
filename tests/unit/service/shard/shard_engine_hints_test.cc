#include "tests/unit/service/shard/engine_fixture.h"

namespace reprise::shard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class Hints : public EngineTest {
 protected:
  static constexpr size_t kLength = 8;

  static std::vector<BlockKey> Chain(size_t i) { return ChainNamed(absl::StrCat("c", i), kLength); }
  HintResult Ask(HintVerb verb, const std::vector<BlockKey>& keys, uint32_t first_block = 0) {
    const absl::StatusOr<HintResult> result = engine_->Hint(
        me_, {.spec = spec_, .keys = keys, .hint = {.verb = verb, .first_block = first_block}});
    EXPECT_TRUE(result.ok()) << result.status();
    ExpectSound();
    return result.value_or(HintResult());
  }
  HintResult Evict(const std::vector<BlockKey>& keys, uint32_t first_block = 0) {
    return Ask(HintVerb::kEvict, keys, first_block);
  }
  HintResult Demote(const std::vector<BlockKey>& keys, uint32_t first_block = 0) {
    return Ask(HintVerb::kDemote, keys, first_block);
  }
};

TEST_F(Hints, EvictDropsAPrefixFromItsEndToTheBlockNamed) {
  Store(Chain(0));
  const HintResult evicted = Evict(Chain(0), 3);
  EXPECT_EQ(evicted.outcome, HintOutcome::kApplied);
  EXPECT_EQ(evicted.blocks, 5u);
  EXPECT_EQ(Run(Chain(0)), 3u);
  EXPECT_EQ(UsedBytes(), 3 * kBlockBytes) << "their memory is free at once";
  EXPECT_EQ(CounterValue("hinted_evict_blocks_total"), 5u);
  const auto why = engine_->Explain(Tenant{"default"}, FingerprintOf(kSpec), Chain(0), {});
  ASSERT_TRUE(why.ok());
  EXPECT_EQ(why->reason, MissReason::kRemoved);
}

TEST_F(Hints, EvictLeavesWhatAnotherPromptGoesOnFrom) {
  std::vector<BlockKey> other = First(Chain(0), 4);
  other.push_back(KeyNamed("other turn"));
  Store(Chain(0));
  Store(other);
  const HintResult evicted = Evict(Chain(0));
  EXPECT_EQ(evicted.outcome, HintOutcome::kClipped);
  EXPECT_EQ(evicted.blocks, 4u);
  EXPECT_THAT(evicted.why, HasSubstr("block 3 stays: another prompt goes on from it"));
  EXPECT_EQ(Run(other), other.size());
}

TEST_F(Hints, EvictLeavesWhatIsReadClaimedOrAboutToBeContinued) {
  Store(Chain(0));
  const AcquireResult lease = Acquire(First(Chain(0), 6));
  EXPECT_THAT(Evict(Chain(0)).why, HasSubstr("block 5 stays: it is in use"));
  EXPECT_EQ(*engine_->Release(me_, {{lease.lease}}), 1u);
  ASSERT_TRUE(engine_
                  ->Hint(me_, {.spec = spec_,
                               .keys = First(Chain(0), 5),
                               .hint = {.verb = HintVerb::kRetain,
                                        .claim_id = "agent",
                                        .ttl = absl::Minutes(1)}})
                  .ok());
  EXPECT_THAT(Evict(Chain(0)).why, HasSubstr("block 4 stays: a claim keeps it"));
  ASSERT_TRUE(engine_->Reserve(me_, {.spec = spec_, .keys = Chain(0)}).ok());
  EXPECT_THAT(Evict(Chain(0)).why,
              HasSubstr("block 4 stays: another prompt is about to go on from it"));
  EXPECT_EQ(Run(Chain(0)), 5u);
}

TEST_F(Hints, NothingStoredIsMissing) {
  Store(First(Chain(0), 2));
  for (const HintVerb verb : {HintVerb::kEvict, HintVerb::kDemote}) {
    const HintResult missing = Ask(verb, Chain(1));
    EXPECT_EQ(missing.outcome, HintOutcome::kMissing);
    EXPECT_THAT(Ask(verb, Chain(0), 2).why, HasSubstr("from block 2 on"));
  }
  EXPECT_EQ(Run(Chain(0)), 2u);
}

TEST_F(Hints, AFirstBlockBeyondTheKeysIsRefused) {
  const absl::StatusOr<HintResult> refused =
      engine_->Hint(me_, {.spec = spec_,
                          .keys = Chain(0),
                          .hint = {.verb = HintVerb::kEvict, .first_block = kLength}});
  EXPECT_EQ(CodeAndReason(refused.status()), "INVALID_ARGUMENT HINT_FIRST_BLOCK");
}

TEST_F(Hints, DemoteMovesAPrefixToTheSlowerTierFromItsEnd) {
  StartTiered(4 * kMiB, 4 * kMiB);
  Store(Chain(0));
  Store(Chain(1));
  EXPECT_EQ(Demote(Chain(0), 5).blocks, 3u);
  EXPECT_THAT(TiersOf(Chain(0)), ElementsAre(Hbm(5), Dram(3)));
  const HintResult rest = Demote(Chain(0));
  EXPECT_EQ(rest.outcome, HintOutcome::kApplied);
  EXPECT_EQ(rest.blocks, 5u);
  EXPECT_THAT(TiersOf(Chain(0)), ElementsAre(Dram(kLength)));
  EXPECT_THAT(TiersOf(Chain(1)), ElementsAre(Hbm(kLength)));
  EXPECT_EQ(CounterValue("hinted_demote_blocks_total"), kLength);
  EXPECT_EQ(Demote(Chain(0)).outcome, HintOutcome::kMissing) << "it is there already";
  const AcquireResult acquired = Acquire(Chain(0));
  ExpectReads(acquired.lease, Chain(0));
}

TEST_F(Hints, DemoteMovesALongPrefixInBatches) {
  static_assert(limits::kDemoteBatchBlocks < 100);
  StartTiered(8 * kMiB, 8 * kMiB);
  const std::vector<BlockKey> keys = ChainNamed("long", 100);
  Store(keys);
  EXPECT_EQ(Demote(keys).blocks, 100u);
  EXPECT_THAT(TiersOf(keys), ElementsAre(Dram(100)));
}

TEST_F(Hints, OneHintMovesNoMoreThanItsShareAndSaysSo) {
  StartTiered(8 * kMiB, 8 * kMiB);
  const CacheSpec small = SmallSpec();
  const SpecHandle spec = Open(me_, small);
  const std::vector<BlockKey> keys = ChainNamed("long", limits::kDemoteHintBlocksMax + 100);
  ASSERT_TRUE(Store(me_, small, {.spec = spec, .keys = keys}).status.ok());
  const auto demote = [&] {
    return engine_->Hint(me_, {.spec = spec, .keys = keys, .hint = {.verb = HintVerb::kDemote}});
  };
  const absl::StatusOr<HintResult> first = demote();
  EXPECT_EQ(first->outcome, HintOutcome::kClipped);
  EXPECT_EQ(first->blocks, limits::kDemoteHintBlocksMax);
  EXPECT_THAT(first->why, HasSubstr("ask again for the rest"));
  const absl::StatusOr<HintResult> rest = demote();
  EXPECT_EQ(rest->outcome, HintOutcome::kApplied);
  EXPECT_EQ(rest->blocks, 100u);
}

TEST_F(Hints, DemoteLeavesWhatIsReadAndWhatOthersHangFrom) {
  StartTiered(4 * kMiB, 4 * kMiB);
  std::vector<BlockKey> other = First(Chain(0), 4);
  other.push_back(KeyNamed("other turn"));
  Store(Chain(0));
  Store(other);
  const HintResult moved = Demote(Chain(0));
  EXPECT_EQ(moved.outcome, HintOutcome::kClipped);
  EXPECT_EQ(moved.blocks, 4u);
  EXPECT_THAT(moved.why, HasSubstr("block 3 stays on its tier: others that hang from it"));
  const AcquireResult lease = Acquire(other);
  EXPECT_THAT(Demote(other).why, HasSubstr("it is in use"));
  EXPECT_EQ(*engine_->Release(me_, {{lease.lease}}), 1u);
  EXPECT_EQ(Demote(other).outcome, HintOutcome::kApplied);
  EXPECT_THAT(TiersOf(other), ElementsAre(Dram(5)));
}

TEST_F(Hints, ADeviceThatRefusesToCopyLeavesTheBlocksWhereTheyAre) {
  StartTiered(4 * kMiB, 4 * kMiB);
  Store(Chain(0));
  control_->refuses = true;
  const HintResult stuck = Demote(Chain(0));
  control_->refuses = false;
  EXPECT_EQ(stuck.outcome, HintOutcome::kClipped);
  EXPECT_EQ(stuck.blocks, 0u);
  EXPECT_THAT(TiersOf(Chain(0)), ElementsAre(Hbm(kLength)));
}

TEST_F(Hints, WithOneTierThereIsNothingToDemoteTo) {
  Store(Chain(0));
  const HintResult nowhere = Demote(Chain(0));
  EXPECT_EQ(nowhere.outcome, HintOutcome::kMissing);
  EXPECT_THAT(nowhere.why, HasSubstr("a slower one below it"));
}

}  // namespace
}  // namespace reprise::shard
