#include "proto/types/hints.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <set>
#include <string>

#include "absl/strings/match.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"

namespace reprise {
namespace {

constexpr size_t kKeys = 3;

Hint Retaining() {
  return {.verb = HintVerb::kRetain, .claim_id = "claim", .ttl = absl::Seconds(1)};
}

std::string ReasonOf(const Hint& hint, size_t key_count = kKeys) {
  const absl::Status status = CheckHint(hint, key_count);
  EXPECT_TRUE(status.ok() || absl::IsInvalidArgument(status)) << status;
  return std::string(RefusalReason(status));
}

TEST(Hints, EveryVerbAndOutcomeHasANameOfItsOwn) {
  std::set<std::string> verbs, outcomes;
  for (int i = 1; i <= static_cast<int>(HintVerb::kDemote); ++i) {
    verbs.insert(HintVerbName(static_cast<HintVerb>(i)));
  }
  for (int i = 1; i <= static_cast<int>(HintOutcome::kMissing); ++i) {
    outcomes.insert(HintOutcomeName(static_cast<HintOutcome>(i)));
  }
  EXPECT_EQ(verbs, (std::set<std::string>{"retain", "pin", "release", "evict", "demote"}));
  EXPECT_EQ(outcomes, (std::set<std::string>{"applied", "clipped", "deferred", "missing"}));
}

TEST(Hints, ARetainWithoutAPriorityMakesSense) {
  EXPECT_TRUE(CheckHint(Retaining(), kKeys).ok());
  EXPECT_EQ(Retaining().priority, limits::kClaimPriority);
}

TEST(Hints, AClaimNeedsAName) {
  for (const HintVerb verb : {HintVerb::kRetain, HintVerb::kPin, HintVerb::kRelease}) {
    Hint hint = Retaining();
    hint.verb = verb;
    hint.claim_id = "";
    EXPECT_EQ(ReasonOf(hint), "CLAIM_ID") << HintVerbName(verb);
    hint.claim_id = std::string(limits::kNameBytesMax, 'c');
    EXPECT_EQ(ReasonOf(hint), "") << HintVerbName(verb);
    hint.claim_id += 'c';
    EXPECT_EQ(ReasonOf(hint), "CLAIM_ID") << HintVerbName(verb);
  }
}

TEST(Hints, AClaimNeedsATimeToEndAfter) {
  for (const HintVerb verb : {HintVerb::kRetain, HintVerb::kPin}) {
    Hint hint = Retaining();
    hint.verb = verb;
    for (const absl::Duration none : {absl::ZeroDuration(), -absl::Seconds(1)}) {
      hint.ttl = none;
      EXPECT_EQ(ReasonOf(hint), "CLAIM_TTL") << HintVerbName(verb);
    }
    hint.ttl = absl::InfiniteDuration();  // it is the shard that cuts it
    EXPECT_EQ(ReasonOf(hint), "") << HintVerbName(verb);
  }
}

TEST(Hints, PrioritiesHaveALeastAndAHighest) {
  Hint hint = Retaining();
  for (const uint32_t priority : {1u, limits::kClaimPriorityMax}) {
    hint.priority = priority;
    EXPECT_EQ(ReasonOf(hint), "") << priority;
  }
  for (const uint32_t priority : {0u, limits::kClaimPriorityMax + 1}) {
    hint.priority = priority;
    EXPECT_EQ(ReasonOf(hint), "CLAIM_PRIORITY") << priority;
    hint.verb = HintVerb::kPin;  // has none
    EXPECT_EQ(ReasonOf(hint), "") << priority;
    hint.verb = HintVerb::kRetain;
  }
}

TEST(Hints, OnlyAReleaseIsAboutNoKeys) {
  for (int i = 1; i <= static_cast<int>(HintVerb::kDemote); ++i) {
    Hint hint = Retaining();
    hint.verb = static_cast<HintVerb>(i);
    EXPECT_EQ(ReasonOf(hint, 0), hint.verb == HintVerb::kRelease ? "" : "HINT_KEYS")
        << HintVerbName(hint.verb);
  }
}

TEST(Hints, WhatIsLetGoBeginsAtOneOfTheKeys) {
  for (const HintVerb verb : {HintVerb::kEvict, HintVerb::kDemote}) {
    Hint hint{.verb = verb};
    hint.first_block = kKeys - 1;
    EXPECT_EQ(ReasonOf(hint), "") << HintVerbName(verb);
    hint.first_block = kKeys;
    EXPECT_EQ(ReasonOf(hint), "HINT_FIRST_BLOCK") << HintVerbName(verb);
    EXPECT_TRUE(absl::StrContains(CheckHint(hint, kKeys).message(), "first_block = 3"));
  }
}

}  // namespace
}  // namespace reprise
