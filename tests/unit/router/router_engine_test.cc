#include "service/router/router_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "proto/types/refusal.h"
#include "tests/unit/router/support.h"

namespace reprise::router {
namespace {

using cluster::ShardState;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

const Tenant kTenant{"default"};
const KeySpace kSpace = {kTenant, FingerprintNamed(1)};
constexpr absl::Duration kInterval = limits::kHeartbeatInterval;
const absl::Duration kDeadAfter = kInterval * limits::kHeartbeatsMissedMax + absl::Nanoseconds(1);

// A shard as the router hears it: it numbers what it says.
class Voice {
 public:
  Voice(RouterEngine* engine, int number) : engine_(engine), id_{absl::StrCat("shard-", number)} {}
  void Begin() {
    feed_ = engine_->BeginFeed(id_);
    sequence_ = 0;
  }
  template <typename Message>
  FeedResult Say(const Message& message, absl::Time now) {
    return engine_->Apply(feed_, ++sequence_, message, now);
  }
  void Skip() { ++sequence_; }
  // An empty snapshot, then a heartbeat.
  void Come(absl::Time now) {
    Begin();
    Say(SnapshotEnd(), now);
    Say(ShardHeartbeat{}, now);
  }
  const ShardId& id() const { return id_; }
  FeedId feed() const { return feed_; }

 private:
  RouterEngine* engine_;
  ShardId id_;
  FeedId feed_;
  uint64_t sequence_ = 0;
};

class RouterEngineTest : public ::testing::Test {
 protected:
  RouterEngineTest() {
    engine_.SetMembers(MembersNumbered(3), now_);
    for (int i = 0; i < 3; ++i) voices_.emplace_back(&engine_, i);
  }
  void AllCome() {
    for (Voice& voice : voices_) voice.Come(now_);
  }
  // All but `silent` are heard until `by` has passed.
  void Pass(absl::Duration by, const std::set<int>& silent = {}) {
    const absl::Time end = now_ + by;
    while (now_ < end) {
      now_ = std::min(now_ + kInterval, end);
      for (int i = 0; i < 3; ++i) {
        if (!silent.contains(i)) voices_[i].Say(ShardHeartbeat{}, now_);
      }
      engine_.Tick(now_);
    }
  }
  std::vector<std::string> Holders(std::span<const BlockKey> keys) {
    std::vector<std::string> text;
    for (const LocatedRun& run : engine_.Locate(kSpace, keys, now_).runs) {
      text.push_back(absl::StrCat(run.shard.id.name, ":", run.blocks));
    }
    return text;
  }
  Route RouteOf(const std::string& session, std::span<const BlockKey> keys = {}) {
    return engine_
        .RouteSession(
            kTenant, {.session_id = session, .fingerprint = kSpace.fingerprint, .keys = keys}, now_)
        .value();
  }
  int NumberOf(const ShardPlace& place) { return place.id.name.back() - '0'; }
  ShardState StateOf(int number) { return engine_.Topology(now_).shards[number].state; }

  RouterEngine engine_;
  std::vector<Voice> voices_;
  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
};

TEST_F(RouterEngineTest, BeforeAnyShardIsHeardThereIsNoHome) {
  const auto route = engine_.RouteSession(kTenant, {.session_id = "chat"}, now_);
  EXPECT_EQ(route.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(RefusalReason(route.status()), "NO_SHARD");
}

TEST_F(RouterEngineTest, EveryAnswerIsCountedByWhatItFound) {
  const auto keys = Chain(1, 3);
  const auto counters = [&] { return engine_.Describe(now_).counters; };
  (void)engine_.RouteSession(kTenant, {.session_id = "chat"}, now_);
  EXPECT_EQ(counters().routed_nowhere, 1u);
  AllCome();
  Holders(keys);
  EXPECT_EQ(counters().located_nothing, 1u);
  RouteOf("chat", keys);
  EXPECT_EQ(counters().routed_nothing, 1u);

  const int home = NumberOf(RouteOf("chat").home);
  EXPECT_EQ(counters().routed_nothing, 2u);
  voices_[(home + 1) % 3].Say(Stored(keys), now_);
  Holders(keys);
  EXPECT_EQ(counters().located, 1u);
  RouteOf("chat", keys);
  EXPECT_EQ(counters().routed_past_blocks, 1u);
  voices_[home].Say(Stored(keys), now_);
  RouteOf("chat", keys);
  EXPECT_EQ(counters().routed_to_blocks, 1u);

  EXPECT_EQ(counters().feed_gaps, 0u);
  voices_[home].Skip();
  EXPECT_EQ(voices_[home].Say(ShardHeartbeat{}, now_), FeedResult::kOver);
  EXPECT_EQ(counters().feed_gaps, 1u);
}

TEST_F(RouterEngineTest, HomeAndFallbacksAreThePlacementOrderOfTheSession) {
  AllCome();
  const std::vector<ShardId> ids = {{"shard-0"}, {"shard-1"}, {"shard-2"}};
  for (int i = 0; i < 50; ++i) {
    const std::string session = absl::StrCat("chat-", i);
    const auto order = cluster::PlacementOrder(session, ids);
    const Route route = RouteOf(session);
    EXPECT_EQ(route.home.id, order[0]);
    EXPECT_EQ(route.home.address, absl::StrCat("h:", 7000 + NumberOf(route.home)));
    ASSERT_EQ(route.fallbacks.size(), 2u);
    EXPECT_EQ(route.fallbacks[0].id, order[1]);
    EXPECT_EQ(route.fallbacks[1].id, order[2]);
  }
}

TEST_F(RouterEngineTest, WithoutASessionTheFirstKeyStandsForIt) {
  AllCome();
  const auto keys = Chain(1, 3);
  const std::vector<ShardId> ids = {{"shard-0"}, {"shard-1"}, {"shard-2"}};
  EXPECT_EQ(RouteOf("", keys).home.id, cluster::PlacementOrder(ToHex(keys[0]), ids)[0]);
}

TEST_F(RouterEngineTest, LocateAnswersLongestFirstWithReplicas) {
  AllCome();
  const auto keys = Chain(1, 10);
  voices_[0].Say(Stored(Chain(1, 4)), now_);
  voices_[1].Say(Stored(keys), now_);
  EXPECT_THAT(Holders(keys), ElementsAre("shard-1:10", "shard-0:4"));
  voices_[2].Say(Stored(keys), now_);
  EXPECT_EQ(Holders(keys).size(), 3u);
  voices_[1].Say(Removed({keys.begin() + 6, keys.end()}), now_);
  EXPECT_THAT(Holders(keys), ElementsAre("shard-2:10", "shard-1:6", "shard-0:4"));
}

TEST_F(RouterEngineTest, AmongEqualRunsTheLeastLoadedComesFirst) {
  AllCome();
  const auto keys = Chain(1, 4);
  for (Voice& voice : voices_) voice.Say(Stored(keys), now_);
  for (int i = 0; i < 60; ++i) {
    const std::string session = absl::StrCat("s", i);
    const int home = NumberOf(RouteOf(session).home);
    if (home != 2) continue;
    EXPECT_NE(engine_.Locate(kSpace, keys, now_).runs[0].shard.id.name, "shard-2");
    return;
  }
  FAIL() << "no session of 60 had shard-2 for its home";
}

TEST_F(RouterEngineTest, AShardThatFallsSilentIsOfferedNoMoreAndItsReplicaIs) {
  AllCome();
  const auto keys = Chain(1, 6);
  voices_[0].Say(Stored(keys), now_);
  voices_[1].Say(Stored(keys), now_);
  const Epoch before = engine_.epoch();
  Pass(kDeadAfter, {0});
  EXPECT_THAT(Holders(keys), ElementsAre("shard-1:6"));
  EXPECT_EQ(StateOf(0), ShardState::kDead);
  EXPECT_GT(engine_.epoch(), before);
  for (int i = 0; i < 30; ++i) {
    const Route route = RouteOf(absl::StrCat("s", i));
    EXPECT_NE(route.home.id.name, "shard-0");
    EXPECT_EQ(route.fallbacks.size(), 1u);
  }
}

TEST_F(RouterEngineTest, ADeathIsSeenByAQuestionEvenBeforeTheTick) {
  AllCome();
  voices_[0].Say(Stored(Chain(1, 6)), now_);
  now_ += kDeadAfter;
  EXPECT_THAT(Holders(Chain(1, 6)), IsEmpty());
  EXPECT_FALSE(engine_.RouteSession(kTenant, {.session_id = "s"}, now_).ok());
}

TEST_F(RouterEngineTest, AShardThatIsHeardAgainOffersWhatItHeld) {
  AllCome();
  voices_[0].Say(Stored(Chain(1, 6)), now_);
  Pass(absl::Seconds(30), {0});
  EXPECT_THAT(Holders(Chain(1, 6)), IsEmpty());
  EXPECT_EQ(voices_[0].Say(ShardHeartbeat{}, now_), FeedResult::kApplied);
  EXPECT_THAT(Holders(Chain(1, 6)), ElementsAre("shard-0:6"));
  EXPECT_EQ(StateOf(0), ShardState::kAlive);
}

TEST_F(RouterEngineTest, AfterAGapTheFeedIsOverAndWhatWasKnownStaysUntilTheNewSnapshotEnds) {
  AllCome();
  voices_[0].Say(Stored(Chain(1, 6)), now_);
  voices_[0].Say(Stored(Chain(2, 6)), now_);
  voices_[0].Skip();
  EXPECT_EQ(voices_[0].Say(ShardHeartbeat{}, now_), FeedResult::kOver);
  EXPECT_EQ(voices_[0].Say(ShardHeartbeat{}, now_), FeedResult::kOver);
  EXPECT_THAT(Holders(Chain(1, 6)), ElementsAre("shard-0:6"));
  voices_[0].Begin();
  voices_[0].Say(Stored(Chain(1, 8)), now_);
  EXPECT_EQ(StateOf(0), ShardState::kSyncing);
  EXPECT_THAT(Holders(Chain(1, 8)), ElementsAre("shard-0:8"));
  EXPECT_THAT(Holders(Chain(2, 6)), ElementsAre("shard-0:6"))
      << "the old contents are still on offer";
  voices_[0].Say(Removed({KeyOf(2, 5)}), now_);
  EXPECT_THAT(Holders(Chain(2, 6)), ElementsAre("shard-0:5")) << "a removal is true of both";
  voices_[0].Say(SnapshotEnd(), now_);
  EXPECT_EQ(StateOf(0), ShardState::kAlive);
  EXPECT_THAT(Holders(Chain(1, 8)), ElementsAre("shard-0:8"));
  EXPECT_THAT(Holders(Chain(2, 6)), IsEmpty());
  EXPECT_EQ(engine_.Describe(now_).shards[0].resyncs, 1u);
}

TEST_F(RouterEngineTest, TheFirstNumberOfAFeedIsTheShardsChoiceButNotZero) {
  const FeedId feed = engine_.BeginFeed({"shard-0"});
  EXPECT_EQ(engine_.Apply(feed, 41, ShardHeartbeat{}, now_), FeedResult::kApplied);
  EXPECT_EQ(engine_.Apply(feed, 42, ShardHeartbeat{}, now_), FeedResult::kApplied);
  EXPECT_EQ(engine_.Apply(feed, 42, ShardHeartbeat{}, now_), FeedResult::kOver);
  const FeedId zero = engine_.BeginFeed({"shard-0"});
  EXPECT_EQ(engine_.Apply(zero, 0, ShardHeartbeat{}, now_), FeedResult::kOver);
}

TEST_F(RouterEngineTest, WhatAnOlderFeedSaysLateIsIgnored) {
  AllCome();
  const FeedId old = voices_[0].feed();
  voices_[0].Begin();
  EXPECT_EQ(engine_.Apply(old, 3, Stored(Chain(1, 6)), now_), FeedResult::kOver);
  EXPECT_THAT(Holders(Chain(1, 6)), IsEmpty());
}

TEST_F(RouterEngineTest, AStrangerHasNoFeed) {
  EXPECT_EQ(engine_.BeginFeed({"shard-9"}), FeedId());
  EXPECT_EQ(engine_.Apply(FeedId(), 1, ShardHeartbeat{}, now_), FeedResult::kOver);
}

TEST_F(RouterEngineTest, ADrainingShardIsReadAndNotWrittenTo) {
  AllCome();
  voices_[0].Say(Stored(Chain(1, 6)), now_);
  voices_[0].Say(ShardHeartbeat{.draining = true}, now_);
  EXPECT_EQ(StateOf(0), ShardState::kDraining);
  EXPECT_THAT(Holders(Chain(1, 6)), ElementsAre("shard-0:6"));
  for (int i = 0; i < 30; ++i) {
    const Route route = RouteOf(absl::StrCat("s", i));
    EXPECT_NE(route.home.id.name, "shard-0");
    for (const ShardPlace& place : route.fallbacks) EXPECT_NE(place.id.name, "shard-0");
  }
}

TEST_F(RouterEngineTest, WherePromptsAreMovedFasterThanComputedABusyHolderIsRelieved) {
  AllCome();
  const auto keys = Chain(1, 14);
  voices_[0].Say(Stored(Chain(1, 12)), now_);
  const auto home = [&](std::optional<RecomputeCost> recompute) {
    return NumberOf(
        engine_
            .RouteSession(kTenant,
                          {.fingerprint = kSpace.fingerprint, .keys = keys, .recompute = recompute},
                          now_)
            ->home);
  };
  for (int i = 0; i < 20; ++i) EXPECT_EQ(home(std::nullopt), 0) << "its blocks are all there is";
  // Ten blocks a second are computed, a hundred times as many are moved: once the shards know it.
  const RecomputeCost slow{.per_block = absl::Milliseconds(100), .block_bytes = 1 << 20};
  EXPECT_EQ(home(slow), 0) << "no shard has measured what moving takes";
  for (Voice& voice : voices_) {
    voice.Say(ShardHeartbeat{.peer_bytes_per_second = uint64_t{1000} << 20}, now_);
  }
  EXPECT_NE(home(slow), 0);
  const RecomputeCost fast{.per_block = absl::Microseconds(100), .block_bytes = 1 << 20};
  EXPECT_EQ(home(fast), 0) << "computed sooner than moved";
}

TEST_F(RouterEngineTest, ASessionWhoseHomeDiedStaysWhereItWentWhenTheHomeReturns) {
  AllCome();
  const int home = NumberOf(RouteOf("chat").home);
  Pass(kDeadAfter, {home});
  const Route moved = RouteOf("chat");
  EXPECT_NE(NumberOf(moved.home), home);
  voices_[home].Come(now_);
  EXPECT_EQ(RouteOf("chat").home, moved.home);
  Pass(kDeadAfter, {NumberOf(moved.home)});
  EXPECT_NE(RouteOf("chat").home, moved.home);
}

TEST_F(RouterEngineTest, ASessionWhoseHomeDiedGoesWhereItsBlocksAre) {
  AllCome();
  const Route route = RouteOf("chat");
  const auto keys = Chain(1, 6);
  const int home = NumberOf(route.home);
  const int last = NumberOf(route.fallbacks[1]);
  voices_[home].Say(Stored(keys, "chat"), now_);
  voices_[last].Say(Stored(keys, "chat"), now_);
  Pass(kDeadAfter, {home});
  EXPECT_EQ(NumberOf(RouteOf("chat", keys).home), last);
}

TEST_F(RouterEngineTest, ANewShardDoesNotPullSessionsAwayFromTheirBlocks) {
  AllCome();
  std::vector<ShardPlace> homes;
  for (int i = 0; i < 40; ++i) homes.push_back(RouteOf(absl::StrCat("s", i)).home);
  engine_.SetMembers(MembersNumbered(4), now_);
  Voice newcomer(&engine_, 3);
  newcomer.Come(now_);
  for (int i = 0; i < 40; ++i) EXPECT_EQ(RouteOf(absl::StrCat("s", i)).home, homes[i]);
  int to_newcomer = 0;
  for (int i = 0; i < 40; ++i) {
    to_newcomer += RouteOf(absl::StrCat("new", i)).home.id.name == "shard-3" ? 1 : 0;
  }
  EXPECT_GT(to_newcomer, 0);
}

// What a router that was started anew learns from the shards' snapshots.
TEST_F(RouterEngineTest, EventsTellWhereASessionLivesWhateverFeedSpeaksFirst) {
  AllCome();
  const std::vector<ShardId> ids = {{"shard-0"}, {"shard-1"}, {"shard-2"}};
  for (int i = 0; i < 20; ++i) {
    const std::string session = absl::StrCat("s", i);
    const auto order = cluster::PlacementOrder(session, ids);
    const int owner = order[1].name.back() - '0';
    const int replica = order[2].name.back() - '0';
    const auto keys = Chain(100 + i, 3);
    for (int first : i % 2 == 0 ? std::vector{owner, replica} : std::vector{replica, owner}) {
      voices_[first].Say(Stored(keys, session), now_);
    }
    EXPECT_EQ(NumberOf(RouteOf(session).home), owner) << session;
  }
}

TEST_F(RouterEngineTest, AMemberThatLeavesTakesItsBlocksAlong) {
  AllCome();
  voices_[2].Say(Stored(Chain(1, 6)), now_);
  const Epoch before = engine_.epoch();
  engine_.SetMembers(MembersNumbered(2), now_);
  EXPECT_GT(engine_.epoch(), before);
  EXPECT_THAT(Holders(Chain(1, 6)), IsEmpty());
  EXPECT_EQ(voices_[2].Say(ShardHeartbeat{}, now_), FeedResult::kOver);
  EXPECT_EQ(engine_.Topology(now_).shards.size(), 2u);
  engine_.Tick(now_);
  EXPECT_EQ(engine_.Describe(now_).index_blocks, 0u);
  engine_.SetMembers(MembersNumbered(3), now_);
  EXPECT_EQ(StateOf(2), ShardState::kDead) << "a member that returns is heard before it is offered";
}

TEST_F(RouterEngineTest, TheSameMembersAgainAreNoChange) {
  AllCome();
  const Epoch before = engine_.epoch();
  engine_.SetMembers(MembersNumbered(3), now_);
  EXPECT_EQ(engine_.epoch(), before);
  auto moved = MembersNumbered(3);
  moved[0].address = "h:9";
  engine_.SetMembers(moved, now_);
  EXPECT_GT(engine_.epoch(), before);
}

TEST_F(RouterEngineTest, AShardDeadForLongIsForgotten) {
  AllCome();
  voices_[0].Say(Stored(Chain(1, 6)), now_);
  Pass(limits::kDeadShardMemory + absl::Seconds(1), {0});
  EXPECT_EQ(engine_.Describe(now_).index_blocks, 0u);
  EXPECT_EQ(voices_[0].Say(ShardHeartbeat{}, now_), FeedResult::kOver) << "it must begin anew";
  voices_[0].Come(now_);
  EXPECT_EQ(StateOf(0), ShardState::kAlive);
}

TEST_F(RouterEngineTest, AnEpochNeverStandsForTwoTopologies) {
  std::mt19937 random(11);
  std::map<uint64_t, std::string> seen;
  AllCome();
  for (int i = 0; i < 3000; ++i) {
    const int shard = static_cast<int>(random() % 3);
    switch (random() % 6) {
      case 0:
        voices_[shard].Begin();
        break;
      case 1:
        voices_[shard].Say(SnapshotEnd(), now_);
        break;
      case 2:
        voices_[shard].Say(ShardHeartbeat{.draining = random() % 4 == 0}, now_);
        break;
      case 3:
        now_ += absl::Milliseconds(random() % 900);
        engine_.Tick(now_);
        break;
      case 4:
        engine_.SetMembers(MembersNumbered(1 + static_cast<int>(random() % 3)), now_);
        break;
      default:
        voices_[shard].Skip();
    }
    const cluster::Topology topology = engine_.Topology(now_);
    std::string text;
    for (const auto& s : topology.shards) {
      absl::StrAppend(&text, s.id.name, "=", cluster::ShardStateName(s.state), " ");
    }
    const auto [it, fresh] = seen.emplace(topology.epoch.value, text);
    ASSERT_EQ(it->second, text);
    ASSERT_EQ(seen.rbegin()->first, topology.epoch.value) << "the epoch went back";
  }
  EXPECT_GT(seen.size(), 100u);
}

}  // namespace
}  // namespace reprise::router
