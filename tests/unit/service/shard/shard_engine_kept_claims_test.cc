// Claims on what is on a disk that is kept: they outlive a process that ends in order, as far as
// the next one may keep them.
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/service/shard/kept_fixture.h"

namespace reprise::shard {
namespace {

class KeptClaimTest : public KeptTest {
 protected:
  void Pin(const std::vector<BlockKey>& keys, const std::string& name) {
    Claim(keys, {.verb = HintVerb::kPin, .claim_id = name, .ttl = absl::Minutes(10)});
  }
  void Claim(const std::vector<BlockKey>& keys, const Hint& hint) {
    ASSERT_TRUE(engine_->Hint(me_, {.spec = spec_, .keys = keys, .hint = hint}).ok());
  }
  ClaimsUse Claims() const { return engine_->Describe(std::nullopt).claims; }
  // The next process, in which claims may keep so much of memory and quotas.
  void RestartWithShare(double share, TenantQuotas quotas = {}) {
    engine_ = nullptr;
    ShardEngineOptions options = OptionsOf({.quotas = std::move(quotas)});
    options.claimed_share = share;
    StartWith(std::move(options));
    ExpectSound();
  }
};

TEST_F(KeptClaimTest, WhatIsClaimedStaysClaimedUntilItsTime) {
  Fill(0, kFillDisk);
  Pin(Chain(0), "prompt");
  Save();
  Restart();
  EXPECT_EQ(Claims().pinned_bytes, kLength * kBlockBytes);
  Fill(100, kFillDisk + kFillDram);
  EXPECT_EQ(Run(Chain(0)), kLength);
  EXPECT_EQ(Run(Chain(1)), 0u);
  clock_.Advance(absl::Minutes(10));
  engine_->Tick();
  EXPECT_EQ(Claims().claims, 0u);
}

TEST_F(KeptClaimTest, AClaimThatWaitedForBlocksStillDoes) {
  Claim(Chain(0),
        {.verb = HintVerb::kRetain, .claim_id = "soon", .priority = 50, .ttl = absl::Minutes(10)});
  Restart();
  Fill(0, 1);
  EXPECT_EQ(Claims().claimed_bytes, kLength * kBlockBytes);
}

TEST_F(KeptClaimTest, AClaimThatEndedWhileNoProcessWasThereIsOver) {
  Fill(0, 2);
  Pin(Chain(0), "over");
  Pin(Chain(1), "not over");
  Save();
  RestartWith([](KeptContents& contents) {
    for (KeptClaim& claim : contents.claims) {
      if (claim.name == "over") claim.ends = absl::Now() - absl::Seconds(1);
    }
  });
  EXPECT_EQ(Claims().claims, 1u);
}

TEST_F(KeptClaimTest, AClaimLastsNoLongerThanOneMayWhateverTheClockSays) {
  Fill(0, 1);
  Pin(Chain(0), "long");
  Save();
  RestartWith([](KeptContents& contents) {
    contents.claims.front().ends = absl::Now() + 3 * limits::kClaimTtlMax;
  });
  EXPECT_EQ(Claims().claims, 1u);
  clock_.Advance(limits::kClaimTtlMax);
  engine_->Tick();
  EXPECT_EQ(Claims().claims, 0u);
}

TEST_F(KeptClaimTest, OfTwoClaimsOfOneNameTheFirstCounts) {
  Fill(0, 2);
  Pin(Chain(0), "mine");
  Save();
  RestartWith([](KeptContents& contents) { contents.claims.push_back(contents.claims.front()); });
  EXPECT_EQ(Claims().claims, 1u);
}

TEST_F(KeptClaimTest, AClaimOnWhatDidNotReachTheDiskIsOver) {
  Fill(0, 1);
  Pin(Chain(0), "in memory");
  Restart();
  EXPECT_EQ(Claims().claims, 0u);
}

TEST_F(KeptClaimTest, APinStaysAPinAndAClaimAClaim) {
  Fill(0, 2);
  Pin(Chain(0), "pin");
  Claim(Chain(1), {.verb = HintVerb::kRetain,
                   .claim_id = "retained",
                   .priority = 70,
                   .ttl = absl::Minutes(10)});
  Save();
  Restart();
  EXPECT_EQ(Claims().pinned_bytes, kLength * kBlockBytes);
  EXPECT_EQ(Claims().claimed_bytes, 2 * kLength * kBlockBytes);
  for (const ChainEnd& end : engine_->Chains()) {
    const auto chain = engine_->ChainTo(end);
    ASSERT_EQ(chain->claims.size(), 1u);
    const bool pinned = chain->keys == Chain(0);
    EXPECT_EQ(chain->claims.front().hint.verb, pinned ? HintVerb::kPin : HintVerb::kRetain);
    if (!pinned) {
      EXPECT_EQ(chain->claims.front().hint.priority, 70u);
    }
  }
}

// Pins may keep less than claims.
TEST_F(KeptClaimTest, APinThatMayKeepLessNowKeepsTheFirstBlocks) {
  Fill(0, kFillDisk);
  for (size_t i = 0; i < 12; ++i) {
    Pin(Chain(i), absl::StrCat("pin ", i));
  }
  Save();
  ASSERT_EQ(Claims().pinned_bytes, 12 * kLength * kBlockBytes);
  RestartWithShare(0.5);
  const ClaimsUse claims = Claims();
  EXPECT_GT(claims.pinned_bytes, 0u);
  EXPECT_LE(claims.pinned_bytes, claims.pinned_bytes_max);
  EXPECT_LE(claims.claimed_bytes, claims.claimed_bytes_max);
}

// What waited for more than it may keep now does not wait for the rest.
TEST_F(KeptClaimTest, AClaimThatMayKeepLessNowWaitsForNothing) {
  Fill(0, 1);
  const auto keys = Branch(Chain(0), "more", 4);
  Pin(keys, "growing");
  Save();
  TenantQuotas quotas;
  quotas.default_bytes = 64 * kBlockBytes;
  RestartWithShare(0.1, quotas);  // less than the chain
  const uint64_t kept = Claims().claimed_bytes;
  EXPECT_GT(kept, 0u);
  EXPECT_LT(kept, kLength * kBlockBytes);
  ASSERT_TRUE(Store(keys).status.ok());
  ExpectSound();
  EXPECT_EQ(Claims().claimed_bytes, kept);
}

TEST_F(KeptClaimTest, AClaimThatMayKeepNothingNowIsOver) {
  Fill(0, 1);
  Pin(Chain(0), "nothing");
  Pin(Branch(Chain(0), "more", 4), "nothing, and more to come");
  Save();
  RestartWithShare(0);
  EXPECT_EQ(Claims().claims, 0u);
}

TEST_F(KeptClaimTest, ATenantHasNoMoreClaimsThanItsShareOfThem) {
  Fill(0, 1);
  Pin(Chain(0), "c");
  Save();
  const auto most =
      static_cast<size_t>(limits::kClaimsTenantShare * static_cast<double>(limits::kClaimsMax));
  RestartWith([&](KeptContents& contents) {
    const KeptClaim one = contents.claims.front();
    for (size_t i = 0; i < most + 5; ++i) {
      contents.claims.push_back(one);
      contents.claims.back().name = absl::StrCat("c", i);
    }
  });
  EXPECT_EQ(Claims().claims, most);
}

TEST_F(KeptClaimTest, ClaimsDoNotOutliveAKill) {
  Fill(0, 2);
  Pin(Chain(0), "prompt");
  Save();
  Restart();
  ASSERT_EQ(Claims().claims, 1u);
  Crash();
  EXPECT_EQ(Claims().claims, 0u);
}

TEST_F(KeptClaimTest, ClaimsOfAJournalWithoutAnEndDoNotComeBack) {
  Pin(Chain(0), "waits for its blocks");
  RestartWith([](KeptContents& contents) { contents.closed = false; });
  EXPECT_EQ(Claims().claims, 0u);
}

}  // namespace
}  // namespace reprise::shard
