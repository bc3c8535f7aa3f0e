#include "proto/wire/verbs.h"

#include <gtest/gtest.h>

namespace reprise::wire {
namespace {

TEST(VerbsTest, RunsByTierSurviveBothWays) {
  const std::vector<TierRun> runs = {{Tier::kHbm, 3}, {Tier::kDram, 70'000}, {Tier::kNvme, 1}};
  v1::AcquireResponse message;
  ToMessage(runs, message.mutable_tiers());
  EXPECT_EQ(*FromMessage(message.tiers()), runs);
  message.mutable_tiers(1)->set_tier(v1::TIER_UNSPECIFIED);
  EXPECT_EQ(FromMessage(message.tiers()).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(VerbsTest, OutcomesSurviveBothWays) {
  const std::vector<ReserveOutcome> outcomes = {ReserveOutcome::kPresent, ReserveOutcome::kGranted,
                                                ReserveOutcome::kPending, ReserveOutcome::kNoSpace};
  v1::ReserveResponse message;
  ToMessage(outcomes, message.mutable_outcomes());
  v1::ReserveResponse parsed;
  ASSERT_TRUE(parsed.ParseFromString(message.SerializeAsString()));
  EXPECT_EQ(*FromMessage(parsed.outcomes()), outcomes);
  parsed.add_outcomes(static_cast<v1::ReserveOutcome>(9));
  EXPECT_EQ(FromMessage(parsed.outcomes()).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(VerbsTest, AnExplanationSurvivesBothWays) {
  const Explanation sent{
      .run_blocks = 4,
      .tiers = {{Tier::kDram, 4}},
      .reason = MissReason::kTokensDiffer,
      .miss_block = 5,
      .event_unix_ms = 1'700'000'000'123,
      .event_cause = "evicted for space",
      .first_differing_token = 71,
      .prompt_token = 8,
      .stored_token = 9,
      .spec_difference = {.field = "dtype", .left = "bf16", .right = "f16"},
      .sentence = "block 5 was never stored",
  };
  const absl::StatusOr<Explanation> got = FromMessage(ToMessage(sent));
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->run_blocks, sent.run_blocks);
  EXPECT_EQ(got->tiers, sent.tiers);
  EXPECT_EQ(got->reason, sent.reason);
  EXPECT_EQ(got->miss_block, sent.miss_block);
  EXPECT_EQ(got->event_unix_ms, sent.event_unix_ms);
  EXPECT_EQ(got->event_cause, sent.event_cause);
  EXPECT_EQ(got->first_differing_token, sent.first_differing_token);
  EXPECT_EQ(got->prompt_token, sent.prompt_token);
  EXPECT_EQ(got->stored_token, sent.stored_token);
  EXPECT_EQ(got->spec_difference.field, sent.spec_difference.field);
  EXPECT_EQ(got->spec_difference.left, sent.spec_difference.left);
  EXPECT_EQ(got->spec_difference.right, sent.spec_difference.right);
  EXPECT_EQ(got->sentence, sent.sentence);
}

TEST(VerbsTest, AnExplanationWithoutAReasonIsRefused) {
  EXPECT_EQ(FromMessage(v1::ExplainResponse()).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace reprise::wire
