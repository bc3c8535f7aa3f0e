// Claims on blocks of several tiers.
#include "tests/unit/service/shard/claims_fixture.h"

namespace reprise::shard {
namespace {

using ::testing::ElementsAre;

// Two tiers of 64 slots.
class TieredClaims : public Claims {
 protected:
  void SetUp() override {
    control_ = std::make_shared<reprise::testing::HostHbmControl>();
    control_->guarded = true;
    StartWith({.dram_bytes = 4 * kMiB,
               .hbm_bytes = 4 * kMiB,
               .hbm_device = std::make_unique<reprise::testing::HostHbmDevice>(control_),
               .claimed_share = 2.0,
               .background_eviction = false});
  }
};

TEST_F(TieredClaims, WhatIsClaimedMovesDownAfterAllThatIsNot) {
  Fill(0, 8);
  Place(Chain(0), RetainHint("agent"));
  Fill(8, 7);
  EXPECT_THAT(TiersOf(Chain(0)), ElementsAre(Hbm(kLength)));
  for (size_t i = 1; i < 8; ++i) EXPECT_THAT(TiersOf(Chain(i)), ElementsAre(Dram(kLength))) << i;
}

TEST_F(TieredClaims, WhatIsPinnedMayMoveDownAndIsNotDroppedThere) {
  Fill(0, 1);
  Place(Chain(0), PinHint("agent"));
  for (size_t i = 1; i < 8; ++i) {
    Fill(i, 1);
    Place(Chain(i), PinHint(absl::StrCat("c", i)));
  }
  Fill(8, 1);  // its room is made by moving pinned blocks
  EXPECT_THAT(TiersOf(Chain(0)), ElementsAre(Dram(kLength)));
  Fill(9, 20);
  engine_->EvictToWatermark();
  for (size_t i = 0; i < 8; ++i) EXPECT_EQ(Run(Chain(i)), kLength) << i;
  ExpectClaimed(kSlots, kSlots);
}

TEST_F(TieredClaims, WhatIsLeftOnATierOfAClaimedPromptIsClaimedToo) {
  Fill(0, 8);
  Place(Chain(0), RetainHint("agent", 1));
  const absl::StatusOr<HintResult> tail =
      Ask(Chain(0), {.verb = HintVerb::kDemote, .first_block = 5});
  ASSERT_TRUE(tail.ok());
  ExpectSound();
  ASSERT_THAT(TiersOf(Chain(0)), ElementsAre(Hbm(5), Dram(3)));
  Fill(8, 7);  // all others of before move down first
  EXPECT_THAT(TiersOf(Chain(0)), ElementsAre(Hbm(5), Dram(3)));
  ASSERT_TRUE(Release("agent").ok());
  ExpectSound();
  Fill(15, 1);
  EXPECT_THAT(TiersOf(Chain(0)), ElementsAre(Dram(kLength)));
}

TEST_F(TieredClaims, PinsThatFillTheLastTierEmptyNoOther) {
  for (size_t i = 0; i < 8; ++i) {
    Fill(i, 1);
    Place(Chain(i), PinHint(absl::StrCat("c", i)));
    ASSERT_EQ(Ask(Chain(i), {.verb = HintVerb::kDemote})->blocks, kLength) << i;
  }
  Fill(8, 7);  // below the watermark
  engine_->EvictToWatermark();
  ExpectSound();
  for (size_t i = 0; i < 15; ++i) EXPECT_EQ(Run(Chain(i)), kLength) << i;
}

TEST_F(TieredClaims, ClaimsOnWhatLayOnALostGpuWaitForItAgain) {
  Fill(0, 1);
  Place(Chain(0), PinHint("agent"));
  const AcquireResult acquired = Acquire(Chain(0));
  {
    const auto opened = engine_->OpenRead(me_, acquired.lease, 0, 0);
    ASSERT_TRUE(opened.ok());
    control_->lost = true;
    std::vector<uint8_t> bytes(kBlockBytes);
    EXPECT_FALSE(engine_->CopyToHost(opened->front().bytes, bytes).ok());
  }
  const uint64_t before = engine_->Describe(std::nullopt).claims.claimed_bytes_max;
  engine_->Tick();
  ExpectClaimed(0);
  EXPECT_EQ(engine_->Describe(std::nullopt).claims.claimed_bytes_max, before)
      << "by what is left: the loss is known at once";
  EXPECT_EQ(before, 2 * 4 * kMiB);
  EXPECT_EQ(*engine_->Release(me_, {{acquired.lease}}), 1u);
  Fill(0, 1);
  EXPECT_THAT(TiersOf(Chain(0)), ElementsAre(Dram(kLength)));
  ExpectClaimed(kLength, kLength);
}

}  // namespace
}  // namespace reprise::shard
