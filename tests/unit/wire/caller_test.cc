#include "proto/wire/caller.h"

#include <gtest/gtest.h>

#include "proto/types/refusal.h"

namespace reprise::wire {
namespace {

const AccessPolicy kPolicy = {.proven = true,
                              .allowed = {"spiffe://prod/ns/chat", "spiffe://prod/batch/"},
                              .fleet = {"spiffe://prod/reprise"},
                              .operators = {"spiffe://prod/ops"}};

TEST(CallerTest, WithoutProofEverybodyIsTheDefaultTenantAndSpeaksForNobodyElse) {
  const auto caller = CallerOf("", AccessPolicy{});
  ASSERT_TRUE(caller.ok());
  EXPECT_EQ(caller->tenant.name, kDefaultTenant);
  EXPECT_TRUE(caller->operates);
  EXPECT_FALSE(caller->speaks_for_others);
}

TEST(CallerTest, ATenantIsWhoTheCertificateSays) {
  const auto caller = CallerOf("spiffe://prod/ns/chat/sa/worker", kPolicy);
  ASSERT_TRUE(caller.ok()) << caller.status();
  EXPECT_EQ(caller->tenant.name, "spiffe://prod/ns/chat/sa/worker");
  EXPECT_FALSE(caller->operates);
  EXPECT_FALSE(caller->speaks_for_others);
  EXPECT_EQ(RefusalReason(CheckOperates(*caller, "Drain")), "OPERATORS_ALONE");
}

TEST(CallerTest, OnlyTheFleetSpeaksForOthersAndOperatorsOperate) {
  const auto shard = CallerOf("spiffe://prod/reprise", kPolicy);
  ASSERT_TRUE(shard.ok()) << "the fleet needs no allowance of its own";
  EXPECT_TRUE(shard->speaks_for_others);
  EXPECT_TRUE(shard->operates);
  const auto person = CallerOf("spiffe://prod/ops", kPolicy);
  ASSERT_TRUE(person.ok());
  EXPECT_TRUE(CheckOperates(*person, "Drain").ok());
  EXPECT_FALSE(person->speaks_for_others);
}

TEST(CallerTest, AnIdIsAllowedWithWhatLiesBelowItAndNothingThatOnlyBeginsLikeIt) {
  for (const char* id : {"spiffe://prod/ns/chat", "spiffe://prod/ns/chat/sa/w",
                         "spiffe://prod/batch", "spiffe://prod/batch/7"}) {
    EXPECT_TRUE(CallerOf(id, kPolicy).ok()) << id;
  }
  for (const char* id : {"spiffe://prod/ns/chatter", "spiffe://prod", "spiffe://prod/ops/x",
                         "spiffe://prod/reprise/evil", "spiffe://other/ns/chat"}) {
    EXPECT_EQ(RefusalReason(CallerOf(id, kPolicy).status()), "CALLER_NOT_ALLOWED") << id;
  }
}

TEST(CallerTest, ACertificateWithoutAnIdIsNobody) {
  const auto caller = CallerOf("", kPolicy);
  EXPECT_EQ(RefusalReason(caller.status()), "IDENTITY_MISSING");
  EXPECT_EQ(caller.status().code(), absl::StatusCode::kUnauthenticated);
}

}  // namespace
}  // namespace reprise::wire
