#include "proto/wire/hints.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "reprise/v1/shard.pb.h"

namespace reprise::wire {
namespace {

Hint Sent(const Hint& hint) {
  v1::HintRequest request, parsed;
  ToMessage(hint, request);
  EXPECT_TRUE(parsed.ParseFromString(request.SerializeAsString()));
  const absl::StatusOr<Hint> got = FromMessage(parsed);
  EXPECT_TRUE(got.ok()) << got.status();
  return *got;
}

TEST(HintsWireTest, EveryHintSurvivesBothWays) {
  const std::vector<Hint> hints = {
      {.verb = HintVerb::kRetain, .claim_id = "a", .priority = 7, .ttl = absl::Seconds(90)},
      {.verb = HintVerb::kPin, .claim_id = "b", .ttl = absl::Milliseconds(1)},
      {.verb = HintVerb::kPin, .claim_id = "b", .ttl = absl::Hours(1), .unless_claimed = true},
      {.claim_id = "a", .ttl = absl::Hours(1), .unless_claimed = true},
      {.verb = HintVerb::kRelease, .claim_id = "c"},
      {.verb = HintVerb::kEvict, .first_block = 3},
      {.verb = HintVerb::kDemote, .first_block = std::numeric_limits<uint32_t>::max()}};
  for (const Hint& hint : hints) {
    const Hint got = Sent(hint);
    EXPECT_EQ(got.verb, hint.verb) << HintVerbName(hint.verb);
    EXPECT_EQ(got.claim_id, hint.claim_id) << HintVerbName(hint.verb);
    EXPECT_EQ(got.priority, hint.priority) << HintVerbName(hint.verb);
    EXPECT_EQ(got.ttl, hint.ttl) << HintVerbName(hint.verb);
    EXPECT_EQ(got.first_block, hint.first_block) << HintVerbName(hint.verb);
    EXPECT_EQ(got.unless_claimed, hint.unless_claimed) << HintVerbName(hint.verb);
  }
}

TEST(HintsWireTest, ARetainWithoutAPriorityHasTheDefaultOne) {
  v1::HintRequest request;
  request.mutable_retain()->set_claim_id("a");
  EXPECT_EQ(FromMessage(request)->priority, limits::kClaimPriority);
}

TEST(HintsWireTest, AShortTimeIsNotNone) {
  EXPECT_EQ(Sent({.verb = HintVerb::kPin, .claim_id = "b", .ttl = absl::Microseconds(1)}).ttl,
            absl::Milliseconds(1));
}

TEST(HintsWireTest, NoActionAndOneOfANewerVersionAreRefused) {
  v1::HintRequest request;
  request.set_keys("k");
  EXPECT_EQ(RefusalReason(FromMessage(request).status()), "HINT_ACTION");
  // Field 15, an empty message: what an action that does not exist yet looks like here.
  const std::string newer("\x7a\x00", 2);
  ASSERT_TRUE(request.ParseFromString(newer));
  const absl::Status status = FromMessage(request).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_EQ(RefusalReason(status), "HINT_ACTION");
}

TEST(HintsWireTest, NoTimeOverflowsAndEveryOneThatIsTooLongStaysSo) {
  v1::HintRequest request;
  request.mutable_pin()->set_claim_id("a");
  request.mutable_pin()->set_ttl_ms(std::numeric_limits<uint64_t>::max());
  const absl::Duration most = FromMessage(request)->ttl;
  EXPECT_GT(most, limits::kClaimTtlMax);
  EXPECT_LT(most, absl::InfiniteDuration());
  const Hint endless =
      Sent({.verb = HintVerb::kPin, .claim_id = "a", .ttl = absl::InfiniteDuration()});
  EXPECT_GT(endless.ttl, limits::kClaimTtlMax);
  EXPECT_EQ(Sent({.verb = HintVerb::kPin, .claim_id = "a", .ttl = -absl::Seconds(1)}).ttl,
            absl::ZeroDuration());
}

TEST(HintsWireTest, AResultSurvivesBothWays) {
  for (const HintOutcome outcome : {HintOutcome::kApplied, HintOutcome::kClipped,
                                    HintOutcome::kDeferred, HintOutcome::kMissing}) {
    const HintResult sent{
        .outcome = outcome, .blocks = 5, .ttl = absl::Minutes(2), .why = "it is so"};
    v1::HintResponse parsed;
    ASSERT_TRUE(parsed.ParseFromString(ToMessage(sent).SerializeAsString()));
    const absl::StatusOr<HintResult> got = FromMessage(parsed);
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(got->outcome, sent.outcome);
    EXPECT_EQ(got->blocks, sent.blocks);
    EXPECT_EQ(got->ttl, sent.ttl);
    EXPECT_EQ(got->why, sent.why);
  }
}

TEST(HintsWireTest, AResultWithoutAnOutcomeIsRefused) {
  for (const int number : {0, 9}) {
    v1::HintResponse message;
    message.set_outcome(static_cast<v1::HintOutcome>(number));
    EXPECT_TRUE(absl::IsInvalidArgument(FromMessage(message).status())) << number;
  }
}

}  // namespace
}  // namespace reprise::wire
