// Hints: which shards are asked, what their answers become, and what shards in trouble cost.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "proto/types/clock.h"
#include "proto/types/hints.h"
#include "proto/types/refusal.h"
#include "tests/unit/client/cpp/client_fixture.h"

namespace reprise::client {
namespace {

using reprise::testing::ChainNamed;
using testing::ClientTest;
using ::testing::ElementsAre;
using testing::FakeCluster;
using testing::FakeShard;
using testing::kSession;
using testing::kShort;
using testing::Prefix;

constexpr char kClaim[] = "claim";

reprise::Hint Retaining() {
  return {.verb = HintVerb::kRetain, .claim_id = kClaim, .ttl = absl::Minutes(1)};
}
reprise::Hint Releasing() {
  return {.verb = HintVerb::kRelease, .claim_id = kClaim};
}

class HintTest : public ClientTest {
 protected:
  HintAnswer Ask(const reprise::Hint& hint, const std::vector<BlockKey>& keys,
                 absl::Duration timeout = {}, Client* client = nullptr) {
    auto answer = (client != nullptr ? client : client_.get())
                      ->Hint({.spec = spec_,
                              .keys = keys,
                              .session = kSession,
                              .hint = hint,
                              .timeout = timeout});
    REPRISE_CHECK(answer.ok());
    return *answer;
  }
  // How often each shard was asked, in placement order.
  std::vector<int> Asked() {
    std::vector<int> asked;
    for (size_t rank = 0; rank < cluster_.shards().size(); ++rank)
      asked.push_back(cluster_.Placed(kSession, rank).trouble.hints);
    return asked;
  }
  void SetReplication(uint32_t copies) {
    for (auto& shard : cluster_.shards()) shard->trouble.replication = copies;
  }
  void AllAnswer(const absl::StatusOr<HintResult>& answer) {
    for (auto& shard : cluster_.shards())
      shard->trouble.hint = [answer](const cluster::HintCall&) { return answer; };
  }
  Breaker::State BreakerOf(const FakeShard& shard) {
    for (const ShardView& view : client_->Shards()) {
      if (view.address == shard.address()) return view.breaker;
    }
    return Breaker::State::kClosed;
  }
};

// ---- Which shards

TEST_F(HintTest, AHintGoesToAsManyShardsOfThePlacementOrderAsThereAreCopies) {
  const auto keys = ChainNamed("chain", 4);
  for (uint32_t copies : {0u, 1u, 2u, 3u}) {
    SetReplication(copies);
    for (auto& shard : cluster_.shards()) shard->trouble.hints = 0;
    auto client = cluster_.MakeClient();
    const HintAnswer answer = Ask(Retaining(), keys, {}, client.get());
    EXPECT_TRUE(answer.status.ok()) << answer.status;
    const uint32_t asked = std::max(copies, 1u);
    EXPECT_EQ(answer.shards, asked);
    EXPECT_THAT(Asked(), ElementsAre(1, asked > 1 ? 1 : 0, asked > 2 ? 1 : 0)) << copies;
  }
}

TEST_F(HintTest, AShardThatHoldsSomeOfTheChainIsAskedWhereverItIs) {
  const auto keys = ChainNamed("chain", 4);
  Put(cluster_.Placed(kSession, 2), Prefix(keys, 2));
  const HintAnswer answer = Ask(Retaining(), keys);
  EXPECT_EQ(answer.shards, 2u);
  EXPECT_THAT(Asked(), ElementsAre(1, 0, 1));
  EXPECT_EQ(answer.result.outcome, HintOutcome::kDeferred);
  EXPECT_EQ(answer.result.blocks, 2u);
}

TEST_F(HintTest, AHolderThatThePlacementNamesTooIsAskedOnce) {
  const auto keys = ChainNamed("chain", 4);
  Store(keys);
  EXPECT_EQ(Ask(Retaining(), keys).shards, 1u);
  EXPECT_THAT(Asked(), ElementsAre(1, 0, 0));
}

TEST_F(HintTest, AReleaseWithoutKeysAsksEveryShardWhereverTheClaimIs) {
  const auto keys = ChainNamed("chain", 4);
  Put(cluster_.Placed(kSession, 2), keys);
  ASSERT_EQ(Ask(Retaining(), keys).result.outcome, HintOutcome::kApplied);
  for (auto& shard : cluster_.shards()) shard->trouble.hints = 0;
  const HintAnswer answer = Ask(Releasing(), {});
  EXPECT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(answer.shards, 3u);
  EXPECT_THAT(Asked(), ElementsAre(1, 1, 1));
  EXPECT_EQ(answer.result.outcome, HintOutcome::kApplied);
  EXPECT_EQ(answer.result.blocks, 4u) << "what it held";
  EXPECT_EQ(Ask(Releasing(), {}).result.outcome, HintOutcome::kMissing) << "it is over";
}

TEST_F(HintTest, AHintNeedsNoRouter) {
  std::vector<std::string> addresses;
  for (auto& shard : cluster_.shards()) addresses.push_back(shard->address());
  auto client = cluster_.MakeClient({.shards = addresses});
  const auto keys = ChainNamed("chain", 4);
  Store(keys, 0, client.get());
  EXPECT_EQ(Ask(Retaining(), keys, {}, client.get()).result.blocks, 4u);
  EXPECT_THAT(Asked(), ElementsAre(1, 0, 0));
  EXPECT_EQ(Ask(Releasing(), {}, {}, client.get()).shards, 3u);
  EXPECT_EQ(cluster_.router_calls.load(), 0);
}

// ---- What is asked, and what it comes to

TEST_F(HintTest, TheShardIsToldAllOfTheHint) {
  const auto keys = ChainNamed("chain", 5);
  cluster_.Home(kSession).trouble.hint = [&](const cluster::HintCall& call) {
    EXPECT_EQ(std::vector<BlockKey>(call.keys.begin(), call.keys.end()), keys);
    EXPECT_EQ(call.hint.verb, HintVerb::kRetain);
    EXPECT_EQ(call.hint.claim_id, "system prompt");
    EXPECT_EQ(call.hint.priority, 7u);
    EXPECT_EQ(call.hint.ttl, absl::Minutes(3));
    return HintResult{.outcome = HintOutcome::kClipped,
                      .blocks = 2,
                      .ttl = absl::Minutes(2),
                      .why = "claims may keep no more here"};
  };
  const HintAnswer answer = Ask({.verb = HintVerb::kRetain,
                                 .claim_id = "system prompt",
                                 .priority = 7,
                                 .ttl = absl::Minutes(3)},
                                keys);
  EXPECT_EQ(answer.result.outcome, HintOutcome::kClipped);
  EXPECT_EQ(answer.result.blocks, 2u);
  EXPECT_EQ(answer.result.ttl, absl::Minutes(2));
  EXPECT_EQ(answer.result.why, "claims may keep no more here");
}

TEST_F(HintTest, WhatIsLetGoIsGoneFromTheBlockThatWasNamed) {
  const auto keys = ChainNamed("chain", 6);
  Store(keys);
  const HintAnswer evicted = Ask({.verb = HintVerb::kEvict, .first_block = 4}, keys);
  EXPECT_EQ(evicted.result.outcome, HintOutcome::kApplied);
  EXPECT_EQ(evicted.result.blocks, 2u);
  EXPECT_EQ(Acquire(keys).run->blocks(), 4u);
}

// Of all answers the best counts: the outcome first, then the number of blocks.
TEST_F(HintTest, OneAnswerIsMadeOfAll) {
  const auto result = [](HintOutcome outcome, uint32_t blocks) {
    return HintResult{.outcome = outcome,
                      .blocks = blocks,
                      .ttl = absl::Seconds(blocks),
                      .why = absl::StrCat(HintOutcomeName(outcome), " ", blocks)};
  };
  // Worst first.
  const std::vector<HintResult> ranked = {
      result(HintOutcome::kMissing, 0),  result(HintOutcome::kDeferred, 1),
      result(HintOutcome::kDeferred, 9), result(HintOutcome::kClipped, 3),
      result(HintOutcome::kApplied, 0),  result(HintOutcome::kApplied, 2)};
  SetReplication(2);
  const auto keys = ChainNamed("chain", 9);
  for (size_t a = 0; a < ranked.size(); ++a) {
    for (size_t b = 0; b < ranked.size(); ++b) {
      cluster_.Placed(kSession, 0).trouble.hint = [&](const auto&) { return ranked[a]; };
      cluster_.Placed(kSession, 1).trouble.hint = [&](const auto&) { return ranked[b]; };
      const HintAnswer answer = Ask(Retaining(), keys);
      const HintResult& best = ranked[std::max(a, b)];
      EXPECT_EQ(answer.shards, 2u);
      EXPECT_EQ(answer.result.outcome, best.outcome) << a << " " << b;
      EXPECT_EQ(answer.result.blocks, best.blocks) << a << " " << b;
      EXPECT_EQ(answer.result.ttl, best.ttl) << a << " " << b;
      EXPECT_EQ(answer.result.why, best.why) << a << " " << b;
    }
  }
}

TEST_F(HintTest, ARefusalComesOutAndIsNoReasonToAskAnotherShard) {
  const auto keys = ChainNamed("chain", 4);
  SetReplication(2);
  AllAnswer(Refusal(absl::StatusCode::kResourceExhausted, "CLAIMS_FULL", "claims keep all"));
  const HintAnswer answer = Ask(Retaining(), keys);
  EXPECT_EQ(answer.shards, 0u);
  EXPECT_TRUE(absl::IsResourceExhausted(answer.status)) << answer.status;
  EXPECT_EQ(RefusalReason(answer.status), "CLAIMS_FULL");
  EXPECT_THAT(Asked(), ElementsAre(1, 1, 0));
}

TEST_F(HintTest, WhatOneShardRefusesStaysAppliedAtTheOther) {
  const auto keys = ChainNamed("chain", 4);
  Store(keys);
  SetReplication(2);
  auto client = cluster_.MakeClient();
  cluster_.Placed(kSession, 1).trouble.hint = [](const auto&) {
    return Refusal(absl::StatusCode::kResourceExhausted, "CLAIMS_FULL", "claims keep all");
  };
  const HintAnswer answer = Ask(Retaining(), keys, {}, client.get());
  EXPECT_EQ(answer.shards, 1u);
  EXPECT_EQ(answer.result.outcome, HintOutcome::kApplied);
  EXPECT_EQ(answer.result.blocks, 4u);
  EXPECT_EQ(RefusalReason(answer.status), "CLAIMS_FULL");
}

// ---- Trouble

TEST_F(HintTest, AnOlderShardIsNamedAndKeepsItsPlaceForReadingAndStoring) {
  const auto keys = ChainNamed("chain", 4);
  AllAnswer(absl::UnimplementedError(""));
  for (int i = 0; i < 2 * limits::kBreakerFailuresMax; ++i) {
    const HintAnswer answer = Ask(Retaining(), keys);
    EXPECT_EQ(answer.shards, 0u);
    EXPECT_TRUE(absl::IsUnimplemented(answer.status)) << answer.status;
    EXPECT_TRUE(absl::StrContains(answer.status.message(), cluster_.Home(kSession).address()));
    EXPECT_TRUE(absl::StrContains(answer.status.message(), "knows no hints"));
  }
  EXPECT_EQ(BreakerOf(cluster_.Home(kSession)), Breaker::State::kClosed);
  EXPECT_EQ(Store(keys).stored, 4u);
  EXPECT_EQ(Acquire(keys).run->blocks(), 4u);
}

TEST_F(HintTest, TheNextShardsStandInForOneThatIsDeadAndTheAnswerSaysSo) {
  const auto keys = ChainNamed("chain", 4);
  SetReplication(2);
  Ask(Retaining(), keys);  // learns the order, which is then computed without a router
  for (auto& shard : cluster_.shards()) shard->trouble.hints = 0;
  cluster_.router_down = true;
  cluster_.Home(kSession).trouble.down = true;
  const HintAnswer answer = Ask(Retaining(), keys);
  EXPECT_EQ(answer.shards, 2u);
  EXPECT_EQ(answer.result.outcome, HintOutcome::kDeferred);
  EXPECT_TRUE(absl::IsUnavailable(answer.status)) << answer.status;
  EXPECT_THAT(Asked(), ElementsAre(0, 1, 1));
}

TEST_F(HintTest, ShardsInTroubleArePassedAsFarAsAStoreAndItsCopiesGoAndNoFurther) {
  constexpr int kShards = 6;
  constexpr uint32_t kCopies = 2;
  FakeCluster cluster(kShards);
  for (auto& shard : cluster.shards()) {
    shard->trouble.replication = kCopies;
    shard->trouble.hint = [](const auto&) { return absl::UnavailableError("connection reset"); };
  }
  auto client = cluster.MakeClient();
  const HintAnswer answer = Ask(Retaining(), ChainNamed("chain", 4), {}, client.get());
  EXPECT_EQ(answer.shards, 0u);
  EXPECT_TRUE(absl::IsUnavailable(answer.status)) << answer.status;
  for (size_t rank = 0; rank < kShards; ++rank) {
    EXPECT_EQ(cluster.Placed(kSession, rank).trouble.hints,
              rank < limits::kStoreTargetsMax + kCopies - 1 ? 1 : 0)
        << rank;
  }
}

TEST_F(HintTest, AShardThatTheRouterKnowsIsDeadIsNotMissed) {
  const auto keys = ChainNamed("chain", 4);
  cluster_.Home(kSession).trouble.down = true;
  const HintAnswer answer = Ask(Retaining(), keys);
  EXPECT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(answer.shards, 1u);
  EXPECT_THAT(Asked(), ElementsAre(0, 1, 0));
}

TEST_F(HintTest, AShardThatHangsCostsItsShareOnceAndThenNothing) {
  const auto keys = ChainNamed("chain", 4);
  Ask(Retaining(), keys);
  FakeShard& home = cluster_.Home(kSession);
  home.trouble.hung = true;
  const absl::Duration timeout = 6 * kShort;
  const absl::Time started = MonotonicClock().Now();
  const HintAnswer first = Ask(Retaining(), keys, timeout);
  EXPECT_LT(MonotonicClock().Now() - started, timeout);
  EXPECT_TRUE(absl::IsDeadlineExceeded(first.status)) << first.status;
  EXPECT_EQ(first.shards, 1u) << "the next one";
  const int asked = home.trouble.hints;
  for (int i = 0; i < 20; ++i) {
    const HintAnswer next = Ask(Retaining(), keys, timeout);
    EXPECT_EQ(next.shards, 1u);
    EXPECT_EQ(RefusalReason(next.status), "SHARD_OUT") << next.status;
  }
  EXPECT_EQ(home.trouble.hints, asked);
  EXPECT_EQ(client_->counters().calls_late.load(), 1u);
}

TEST_F(HintTest, WhenEveryShardHangsTheCallReturnsByItsDeadline) {
  const auto keys = ChainNamed("chain", 4);
  SetReplication(3);
  for (auto& shard : cluster_.shards()) shard->trouble.hung = true;
  for (const auto& [hint, about] :
       {std::pair(Retaining(), keys), std::pair(Releasing(), std::vector<BlockKey>())}) {
    const absl::Time started = MonotonicClock().Now();
    const HintAnswer answer = Ask(hint, about, kShort);
    EXPECT_LT(MonotonicClock().Now() - started, 10 * kShort);
    EXPECT_EQ(answer.shards, 0u);
    EXPECT_EQ(answer.result.outcome, HintOutcome::kMissing);
    EXPECT_FALSE(answer.status.ok());
  }
}

TEST_F(HintTest, NobodyThereIsAnAnswer) {
  cluster_.router_down = true;
  const HintAnswer answer = Ask(Retaining(), ChainNamed("chain", 4));
  EXPECT_EQ(answer.shards, 0u);
  EXPECT_TRUE(absl::IsUnavailable(answer.status)) << answer.status;
  EXPECT_EQ(client_->counters().calls_failed.load(), 1u);
}

TEST_F(HintTest, AShardThatRestartedIsAttachedToAgainAtOnce) {
  const auto keys = ChainNamed("chain", 4);
  Ask(Retaining(), keys);
  cluster_.Home(kSession).Restart();
  const HintAnswer answer = Ask(Retaining(), keys);
  EXPECT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(answer.shards, 1u);
}

TEST_F(HintTest, AShardThatForgotTheClientIsAttachedToAgainAtOnce) {
  FakeShard& home = cluster_.Home(kSession);
  bool forgot = false;
  home.trouble.hint = [&](const auto&) -> absl::StatusOr<HintResult> {
    if (std::exchange(forgot, true)) return HintResult{.outcome = HintOutcome::kApplied};
    return Refusal(absl::StatusCode::kNotFound, "ATTACHMENT_UNKNOWN", "attach anew");
  };
  const HintAnswer answer = Ask(Retaining(), ChainNamed("chain", 4));
  EXPECT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(answer.result.outcome, HintOutcome::kApplied);
  EXPECT_THAT(Asked(), ElementsAre(2, 0, 0));
}

// ---- Forms, misuse, counters

TEST_F(HintTest, TheNonBlockingFormGivesTheSameAnswerAndCanBeCancelled) {
  const auto keys = ChainNamed("chain", 4);
  Store(keys);
  const HintCall call{.spec = spec_, .keys = keys, .session = kSession, .hint = Retaining()};
  auto operation = *client_->StartHint(call);
  ASSERT_TRUE(operation.Wait(absl::Seconds(30)));
  const HintAnswer answer = operation.Take();
  EXPECT_EQ(answer.result.outcome, HintOutcome::kApplied);
  EXPECT_EQ(answer.result.blocks, 4u);
  cluster_.Home(kSession).trouble.hung = true;
  // As many as there are threads, and one that waits for a thread.
  std::vector<Operation<HintAnswer>> operations;
  for (size_t i = 0; i <= limits::kClientThreads; ++i) {
    operations.push_back(*client_->StartHint(call));
  }
  operations.back().Cancel();
  EXPECT_TRUE(operations.back().Done());
  EXPECT_TRUE(absl::IsCancelled(operations.back().Take().status));
  cluster_.Home(kSession).trouble.hung = false;
  for (auto& one : operations) EXPECT_TRUE(one.Wait(absl::Seconds(30)));
}

TEST_F(HintTest, ACancelledHintAsksNoFurtherShard) {
  SetReplication(3);
  absl::Notification started;
  Operation<HintAnswer> operation;
  cluster_.Home(kSession).trouble.hint = [&](const auto&) {
    started.WaitForNotification();
    operation.Cancel();
    return HintResult{.outcome = HintOutcome::kApplied};
  };
  operation = *client_->StartHint(
      {.spec = spec_, .keys = ChainNamed("chain", 4), .session = kSession, .hint = Retaining()});
  started.Notify();
  ASSERT_TRUE(operation.Wait(absl::Seconds(30)));
  const HintAnswer answer = operation.Take();
  EXPECT_EQ(answer.shards, 1u);
  EXPECT_TRUE(absl::IsCancelled(answer.status)) << answer.status;
  EXPECT_THAT(Asked(), ElementsAre(1, 0, 0));
}

TEST_F(HintTest, MisuseIsNamedAndNobodyIsAsked) {
  const auto keys = ChainNamed("chain", 3);
  const auto reason = [&](HintCall call) {
    const std::string blocking(RefusalReason(client_->Hint(call).status()));
    EXPECT_EQ(RefusalReason(client_->StartHint(call).status()), blocking);
    return blocking;
  };
  EXPECT_EQ(reason({.spec = nullptr, .keys = keys, .hint = Retaining()}), "SPEC_UNSET");
  EXPECT_EQ(reason({.spec = spec_, .keys = {}, .hint = Retaining()}), "HINT_KEYS");
  EXPECT_EQ(reason({.spec = spec_, .keys = keys, .hint = {.verb = HintVerb::kRelease}}),
            "CLAIM_ID");
  EXPECT_EQ(
      reason({.spec = spec_, .keys = keys, .hint = {.verb = HintVerb::kEvict, .first_block = 3}}),
      "HINT_FIRST_BLOCK");
  EXPECT_EQ(reason({.spec = spec_,
                    .keys = std::vector<BlockKey>(limits::kPromptBlocksMax + 1),
                    .hint = Retaining()}),
            "KEYS_TOO_MANY");
  EXPECT_EQ(reason({.spec = spec_,
                    .keys = keys,
                    .session = std::string(limits::kNameBytesMax + 1, 's'),
                    .hint = Retaining()}),
            "SESSION_TOO_LONG");
  EXPECT_THAT(Asked(), ElementsAre(0, 0, 0));
  EXPECT_EQ(client_->counters().hints.load(), 0u);
}

TEST_F(HintTest, HintsAreCounted) {
  Ask(Retaining(), ChainNamed("chain", 3));
  Ask(Releasing(), {});
  EXPECT_EQ(client_->counters().hints.load(), 2u);
  EXPECT_EQ(nlohmann::json::parse(client_->StatsJson())["hints"], 2);
}

}  // namespace
}  // namespace reprise::client
