#include "tests/unit/service/shard/claims_fixture.h"

namespace reprise::shard {
namespace {

using ::testing::HasSubstr;

TEST_F(Claims, WhatIsRetainedLeavesAfterAllThatNobodyClaims) {
  Fill(0, 8);
  const HintResult placed = Place(Chain(0), RetainHint("agent"));  // the coldest
  EXPECT_EQ(placed.outcome, HintOutcome::kApplied);
  EXPECT_EQ(placed.blocks, kLength);
  EXPECT_EQ(placed.ttl, kTtl);
  EXPECT_EQ(placed.why, "");
  ExpectClaimed(kLength);
  Fill(8, 7);  // as many as all the others
  EXPECT_EQ(Run(Chain(0)), kLength);
  for (size_t i = 1; i < 8; ++i) EXPECT_EQ(Run(Chain(i)), 0u) << i;
  EXPECT_EQ(CounterValue("evicted_claimed_blocks_total"), 0u);
}

TEST_F(Claims, OfWhatIsRetainedTheLowerPriorityGoesFirst) {
  for (size_t i = 0; i < 8; ++i) {
    Fill(i, 1);
    Place(Chain(i), RetainHint(absl::StrCat("c", i), i == 5 ? 1 : 60));
  }
  Fill(8, 1);
  EXPECT_EQ(Run(Chain(5)), 0u) << "the weakest claim, though others are colder";
  for (const size_t i : {0, 1, 2, 3, 4, 6, 7}) EXPECT_EQ(Run(Chain(i)), kLength) << i;
  EXPECT_EQ(CounterValue("evicted_claimed_blocks_total"), kLength) << "it falls back as they go";
}

TEST_F(Claims, OfEqualPrioritiesTheOneUsedLongestAgoGoesFirst) {
  for (size_t i = 0; i < 8; ++i) {
    Fill(i, 1);
    Place(Chain(i), RetainHint(absl::StrCat("c", i)));
  }
  Acquire(Chain(0));
  clock_.Advance(limits::kLeaseTtl);
  Fill(8, 1);
  EXPECT_EQ(Run(Chain(0)), kLength);
  EXPECT_EQ(Run(Chain(1)), 0u);
}

TEST_F(Claims, WhatIsPinnedStaysWhateverElseIsWanted) {
  StartClaimable(2.0);
  Fill(0, 8);
  for (size_t i = 0; i < 7; ++i) {
    EXPECT_EQ(Place(Chain(i), PinHint(absl::StrCat("pin", i))).outcome, HintOutcome::kApplied);
  }
  ExpectClaimed(7 * kLength, 7 * kLength);
  Fill(8, 1);
  EXPECT_EQ(Run(Chain(7)), 0u);
  Place(Chain(8), PinHint("pin8"));
  const Stored refused = Store(Chain(9));
  EXPECT_EQ(CodeAndReason(refused.status), "RESOURCE_EXHAUSTED NO_SPACE");
  engine_->EvictToWatermark();
  for (const size_t i : {0, 1, 2, 3, 4, 5, 6, 8}) EXPECT_EQ(Run(Chain(i)), kLength) << i;
  ASSERT_TRUE(Release("pin3").ok());
  EXPECT_TRUE(Store(Chain(9)).status.ok());
  EXPECT_EQ(Run(Chain(3)), 0u);
}

TEST_F(Claims, AClaimOnAPrefixLeavesWhatComesAfterItToItsTurn) {
  Fill(0, 8);
  Place(First(Chain(0), 3), PinHint("system prompt"));
  ExpectClaimed(3, 3);
  Fill(8, 7);
  EXPECT_EQ(Run(Chain(0)), 3u);
}

TEST_F(Claims, TheTimeOfAClaimRunsFromItsPlacingAndHitsDoNotMoveIt) {
  Fill(0, 1);
  Place(Chain(0), PinHint("agent", absl::Seconds(60)));
  clock_.Advance(absl::Seconds(59));
  ASSERT_TRUE(engine_->KeepAlive(me_).ok());
  EXPECT_EQ(Acquire(Chain(0), absl::Seconds(1)).run_blocks, kLength);
  ExpectClaimed(kLength, kLength);
  clock_.Advance(absl::Seconds(1));
  engine_->Tick();
  ExpectClaimed(0);
  EXPECT_EQ(CounterValue("claims_ended_total"), 1u);
  EXPECT_EQ(Run(Chain(0)), kLength) << "it is as cold as it is, and stored";
}

TEST_F(Claims, AClaimOutlivesTheClientThatPlacedIt) {
  Fill(0, 8);
  Place(Chain(0), RetainHint("agent"));
  engine_->Detach(me_);
  me_ = Attach("default");
  spec_ = Open(me_, kSpec);
  Fill(8, 7);
  EXPECT_EQ(Run(Chain(0)), kLength);
  EXPECT_EQ(Release("agent")->outcome, HintOutcome::kApplied) << "and another client may end it";
}

TEST_F(Claims, AClaimByTheSameNameReplacesTheFormerOne) {
  Fill(0, 2);
  Place(First(Chain(0), 4), RetainHint("agent"));
  Place(Chain(1), PinHint("agent"));
  ExpectClaimed(kLength, kLength);
  EXPECT_EQ(engine_->Describe(std::nullopt).claims.claims, 1u);
  EXPECT_EQ(Release("agent")->blocks, kLength);
  ExpectClaimed(0);
}

TEST_F(Claims, ARefusedClaimLeavesTheFormerOneOfItsName) {
  StartClaimable(0.25);  // 16 blocks, 8 of them pinned
  Fill(0, 4);
  Place(Chain(0), RetainHint("agent"));
  Place(Chain(1), RetainHint("other"));
  ExpectClaimed(2 * kLength);
  EXPECT_EQ(CodeAndReason(Ask(Chain(2), RetainHint("third")).status()),
            "RESOURCE_EXHAUSTED CLAIMS_FULL");
  EXPECT_EQ(CodeAndReason(Ask(Chain(2), PinHint("third")).status()),
            "RESOURCE_EXHAUSTED CLAIMS_FULL")
      << "a pin is a claim too, however few pins there are";
  const absl::StatusOr<HintResult> refused =
      Ask(ChainNamed("too much", limits::kClaimKeysAheadMax / 2 + 1), RetainHint("agent"));
  EXPECT_EQ(CodeAndReason(refused.status()), "RESOURCE_EXHAUSTED CLAIMS_MAX");
  ExpectSound();
  ExpectClaimed(2 * kLength);
  EXPECT_EQ(Release("agent")->blocks, kLength);
}

TEST_F(Claims, AClaimThatIsToKeepAnOlderOneLeavesItAsItIs) {
  Fill(0, 2);
  Place(First(Chain(0), 5), PinHint("agent", absl::Minutes(1)));
  clock_.Advance(absl::Seconds(10));
  reprise::Hint late = RetainHint("agent");
  late.unless_claimed = true;
  const HintResult left = Place(Chain(1), late);
  EXPECT_EQ(left.outcome, HintOutcome::kApplied);
  EXPECT_EQ(left.blocks, 5u);
  EXPECT_EQ(left.ttl, absl::Seconds(50));
  ExpectClaimed(5, 5);
  ASSERT_TRUE(Release("agent").ok());
  EXPECT_EQ(Place(Chain(1), late).blocks, kLength) << "now there is none";
}

TEST_F(Claims, OneTenantsClaimsLeaveThoseOfOthersAPlace) {
  const size_t share =
      static_cast<size_t>(limits::kClaimsTenantShare * static_cast<double>(limits::kClaimsMax));
  const std::vector<BlockKey> keys = ChainNamed("not stored", 1);
  for (size_t i = 0; i < share; ++i) {
    ASSERT_TRUE(Ask(keys, RetainHint(absl::StrCat("claim", i))).ok()) << i;
  }
  const absl::StatusOr<HintResult> refused = Ask(keys, RetainHint("one more"));
  EXPECT_EQ(CodeAndReason(refused.status()), "RESOURCE_EXHAUSTED CLAIMS_MAX");
  EXPECT_THAT(refused.status().message(), HasSubstr("this tenant has"));
  EXPECT_TRUE(Ask(keys, RetainHint("claim0")).ok()) << "one of its own may be placed anew";
  const AttachmentId other = Attach("other");
  const SpecHandle spec = Open(other, kSpec);
  EXPECT_TRUE(
      engine_->Hint(other, {.spec = spec, .keys = keys, .hint = RetainHint("claim0")}).ok());
  Store(keys);  // all of them take it up at once
  ExpectClaimed(1);
  ExpectSound();
}

TEST_F(Claims, WhatIsStoredUnderAnotherParentIsNotWhatAClaimWaitedFor) {
  const std::vector<BlockKey> keys = Chain(0);
  Place({keys[5]}, PinHint("cheap"));  // as if it were a chain's first block
  Place({keys[0], keys[2]}, PinHint("gap"));
  Store(keys);
  ExpectClaimed(1, 1);
  ExpectSound();
}

TEST_F(Claims, WhatSeveralClaimsShareIsCountedOnceAndKeptByTheStrongest) {
  const std::vector<BlockKey> base = ChainNamed("base", 4);
  std::vector<BlockKey> left = base, right = base;
  left.push_back(KeyNamed("left"));
  right.push_back(KeyNamed("right"));
  Store(left);
  Store(right);
  Place(left, RetainHint("left"));
  ExpectClaimed(5);
  Place(right, PinHint("right"));
  ExpectClaimed(6, 5);
  Place(base, RetainHint("base"));
  ExpectClaimed(6, 5);
  ASSERT_TRUE(Release("right").ok());
  ExpectClaimed(5);
  ASSERT_TRUE(Release("left").ok());
  ExpectClaimed(4);
  ASSERT_TRUE(Release("base").ok());
  ExpectClaimed(0);
}

TEST_F(Claims, WhatIsNotStoredYetIsKeptAsSoonAsItIs) {
  const std::vector<BlockKey> keys = Chain(0);
  const HintResult nothing = Place(keys, RetainHint("agent"));
  EXPECT_EQ(nothing.outcome, HintOutcome::kDeferred);
  EXPECT_EQ(nothing.blocks, 0u);
  EXPECT_THAT(nothing.why, HasSubstr("0 of 8 blocks are stored"));
  Store(First(keys, 3));
  ExpectClaimed(3);
  Store(keys);
  ExpectClaimed(kLength);
  Fill(1, 7);
  Fill(8, 7);
  EXPECT_EQ(Run(keys), kLength);
}

TEST_F(Claims, AnotherPromptsBlocksAreNotKeptForAClaimThatWaits) {
  std::vector<BlockKey> other = First(Chain(0), 3);
  other.push_back(KeyNamed("elsewhere"));
  Place(Chain(0), RetainHint("agent"));
  Store(other);
  ExpectClaimed(3);
}

TEST_F(Claims, AClaimWhoseBlocksLeaveHoldsTheRestAndTakesThemUpAgain) {
  Fill(0, 1);
  const std::vector<BlockKey> keys = Chain(0);
  Place(keys, PinHint("agent"));
  const absl::StatusOr<RemoveResult> removed =
      engine_->Remove(me_, spec_, std::vector<BlockKey>{keys[5]});
  ASSERT_TRUE(removed.ok());
  EXPECT_EQ(removed->removed, 3u) << "its owner's word counts";
  ExpectClaimed(5, 5);
  ExpectSound();
  Store(keys);
  ExpectClaimed(kLength, kLength);
  engine_->Quarantine(Tenant{"default"}, FingerprintOf(kSpec), keys[0], "test");
  ExpectClaimed(0);
  ExpectSound();
  Store(keys);
  ExpectClaimed(kLength, kLength);
}

TEST_F(Claims, AWeakClaimThatIsEvictedFallsBackBlockByBlock) {
  Fill(0, 1);
  Place(Chain(0), RetainHint("weak", 1));
  for (size_t i = 1; i < 8; ++i) {
    Fill(i, 1);
    Place(Chain(i), RetainHint(absl::StrCat("c", i), 60));
  }
  Store(ChainNamed("new", 3));
  EXPECT_EQ(Run(Chain(0)), 5u);
  ExpectClaimed(kSlots - 3);
  EXPECT_EQ(CounterValue("evicted_claimed_blocks_total"), 3u);
}

TEST_F(Claims, ClaimsTogetherKeepNoMoreThanTheirShare) {
  StartClaimable(0.5);
  Fill(0, 8);
  EXPECT_EQ(engine_->Describe(std::nullopt).claims.claimed_bytes_max, 32 * kBlockBytes);
  EXPECT_EQ(engine_->Describe(std::nullopt).claims.pinned_bytes_max, 16 * kBlockBytes);
  EXPECT_EQ(Place(Chain(0), PinHint("p0")).outcome, HintOutcome::kApplied);
  EXPECT_EQ(Place(First(Chain(1), 3), PinHint("p1")).outcome, HintOutcome::kApplied);
  const HintResult clipped = Place(Chain(2), PinHint("p2"));
  EXPECT_EQ(clipped.outcome, HintOutcome::kClipped);
  EXPECT_EQ(clipped.blocks, 5u);
  EXPECT_THAT(clipped.why, HasSubstr("5 of 8 stored blocks"));
  const absl::StatusOr<HintResult> full = Ask(Chain(3), PinHint("p3"));
  EXPECT_EQ(CodeAndReason(full.status()), "RESOURCE_EXHAUSTED CLAIMS_FULL");
  EXPECT_THAT(full.status().message(), HasSubstr("--claims"));
  EXPECT_EQ(Place(Chain(3), RetainHint("r3")).blocks, kLength) << "the rest is for what is weaker";
  EXPECT_EQ(Place(Chain(4), RetainHint("r4")).blocks, kLength);
  EXPECT_EQ(CodeAndReason(Ask(Chain(5), RetainHint("r5")).status()),
            "RESOURCE_EXHAUSTED CLAIMS_FULL");
  EXPECT_EQ(Place(First(Chain(3), 5), RetainHint("again")).blocks, 5u)
      << "what is kept already costs nothing";
  ExpectClaimed(32, 16);
  EXPECT_EQ(CounterValue("refused_claims_total"), 2u);
  EXPECT_EQ(CounterValue("claims_clipped_total"), 1u);
}

TEST_F(Claims, AClaimThatWaitsTakesNoMoreThanTheShareEither) {
  StartClaimable(0.125);  // 8 blocks
  Place(Chain(0), RetainHint("agent"));
  Place(Chain(1), RetainHint("other"));
  Fill(0, 2);
  ExpectClaimed(8);
  ExpectSound();
  EXPECT_EQ(CounterValue("claims_clipped_total"), 1u);
}

TEST_F(Claims, AShardThatKeepsNoClaimsSaysSo) {
  StartClaimable(0);
  Fill(0, 1);
  EXPECT_EQ(CodeAndReason(Ask(Chain(0), RetainHint("agent")).status()),
            "RESOURCE_EXHAUSTED CLAIMS_FULL");
  EXPECT_EQ(CodeAndReason(Ask(Chain(1), RetainHint("agent")).status()),
            "RESOURCE_EXHAUSTED CLAIMS_FULL");
}

TEST_F(Claims, ATenantsClaimsKeepNoMoreThanTheirShareOfItsQuota) {
  TenantQuotas quotas;
  quotas.named[Tenant{"small"}] = 16 * kBlockBytes;
  StartClaimable(0.5, std::move(quotas));
  const AttachmentId small = Attach("small");
  const SpecHandle spec = Open(small, kSpec);
  ASSERT_TRUE(Store(small, kSpec, {.spec = spec, .keys = Chain(0)}).status.ok());
  ASSERT_TRUE(Store(small, kSpec, {.spec = spec, .keys = Chain(1)}).status.ok());
  const auto claim = [&](const std::vector<BlockKey>& keys, const std::string& name) {
    return engine_->Hint(small, {.spec = spec, .keys = keys, .hint = RetainHint(name)});
  };
  EXPECT_EQ(claim(Chain(0), "a")->blocks, kLength);
  EXPECT_EQ(CodeAndReason(claim(Chain(1), "b").status()), "RESOURCE_EXHAUSTED CLAIMS_FULL");
  Fill(0, 1);
  EXPECT_EQ(Place(Chain(0), RetainHint("a")).blocks, kLength) << "another tenant has its own";
}

TEST_F(Claims, TenantsDoNotSeeEachOthersClaims) {
  Fill(0, 1);
  Place(Chain(0), RetainHint("agent"));
  const AttachmentId other = Attach("other");
  const SpecHandle spec = Open(other, kSpec);
  const absl::StatusOr<HintResult> released = engine_->Hint(
      other, {.spec = spec, .keys = {}, .hint = {.verb = HintVerb::kRelease, .claim_id = "agent"}});
  ASSERT_TRUE(released.ok());
  EXPECT_EQ(released->outcome, HintOutcome::kMissing);
  EXPECT_THAT(released->why, HasSubstr("agent"));
  ExpectClaimed(kLength);
}

TEST_F(Claims, ATimeBeyondTheLongestIsCutAndSaidSo) {
  Fill(0, 1);
  const HintResult placed = Place(Chain(0), RetainHint("agent", 50, absl::Hours(24 * 365)));
  EXPECT_EQ(placed.outcome, HintOutcome::kClipped);
  EXPECT_EQ(placed.ttl, limits::kClaimTtlMax);
  EXPECT_THAT(placed.why, HasSubstr("720h"));
}

TEST_F(Claims, AHintThatMakesNoSenseIsRefusedAndChangesNothing) {
  Fill(0, 1);
  const auto reason = [&](const std::vector<BlockKey>& keys, const reprise::Hint& hint) {
    return CodeAndReason(Ask(keys, hint).status());
  };
  EXPECT_EQ(reason(Chain(0), RetainHint("")), "INVALID_ARGUMENT CLAIM_ID");
  EXPECT_EQ(reason(Chain(0), RetainHint(std::string(limits::kNameBytesMax + 1, 'x'))),
            "INVALID_ARGUMENT CLAIM_ID");
  EXPECT_EQ(reason(Chain(0), RetainHint("a", 0)), "INVALID_ARGUMENT CLAIM_PRIORITY");
  EXPECT_EQ(reason(Chain(0), RetainHint("a", 101)), "INVALID_ARGUMENT CLAIM_PRIORITY");
  EXPECT_EQ(reason(Chain(0), RetainHint("a", 50, absl::ZeroDuration())),
            "INVALID_ARGUMENT CLAIM_TTL");
  EXPECT_EQ(reason({}, PinHint("a")), "INVALID_ARGUMENT HINT_KEYS");
  EXPECT_EQ(CodeAndReason(engine_
                              ->Hint(AttachmentId(1234567),
                                     {.spec = spec_, .keys = Chain(0), .hint = RetainHint("a")})
                              .status()),
            "NOT_FOUND ATTACHMENT_UNKNOWN");
  ExpectClaimed(0);
}

TEST_F(Claims, AChainTellsOfItsClaimsToThoseWhoTakeItOver) {
  const std::vector<BlockKey> keys = Chain(0);
  Store(keys);
  Place(First(keys, 2), PinHint("prompt", absl::Minutes(5)));
  Place(First(keys, 4), RetainHint("agent", 70, absl::Minutes(1)));
  clock_.Advance(absl::Seconds(20));
  const std::vector<ChainEnd> ends = engine_->Chains();
  ASSERT_EQ(ends.size(), 1u);
  const std::optional<CommittedChain> chain = engine_->ChainTo(ends.front());
  ASSERT_TRUE(chain.has_value());
  ASSERT_EQ(chain->claims.size(), 2u);
  const ChainClaim& agent = chain->claims[0];
  EXPECT_EQ(agent.hint.verb, HintVerb::kRetain);
  EXPECT_EQ(agent.hint.claim_id, "agent");
  EXPECT_EQ(agent.hint.priority, 70u);
  EXPECT_EQ(agent.hint.ttl, absl::Seconds(40));
  EXPECT_EQ(agent.blocks, 4u);
  const ChainClaim& prompt = chain->claims[1];
  EXPECT_EQ(prompt.hint.verb, HintVerb::kPin);
  EXPECT_EQ(prompt.hint.ttl, absl::Seconds(280));
  EXPECT_EQ(prompt.blocks, 2u);
  clock_.Advance(absl::Seconds(40));
  const auto later = engine_->ChainTo(ends.front())->claims;
  ASSERT_EQ(later.size(), 1u) << "what has ended is not told of, also before it is ended";
  EXPECT_EQ(later[0].hint.claim_id, "prompt");
}

}  // namespace
}  // namespace reprise::shard
