#include <atomic>

#include "tests/unit/service/shard/engine_fixture.h"

namespace reprise::shard {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Kind = BlockEvent::Kind;

class Watching : public EngineTest {
 protected:
  std::unique_ptr<BlockWatch> Watch() {
    auto watch = engine_->Watch();
    EXPECT_TRUE(watch.ok()) << watch.status();
    return watch.ok() ? *std::move(watch) : nullptr;
  }
  // Everything that waits now.
  std::vector<BlockEvent> Drain(BlockWatch& watch) {
    std::vector<BlockEvent> events;
    while (true) {
      auto event = watch.Next(absl::InfinitePast());
      EXPECT_TRUE(event.ok()) << event.status();
      if (!event.ok() || !event->has_value()) return events;
      events.push_back(**std::move(event));
    }
  }
};

TEST_F(Watching, TheSnapshotComesFirstAndEnds) {
  const std::vector<BlockKey> chain = ChainNamed("a", 3);
  const std::vector<BlockKey> branch = {chain[0], KeyNamed("b1"), KeyNamed("b2")};
  Store(me_, kSpec, {.spec = spec_, .keys = chain, .session_id = "s"});
  Store(me_, kSpec, {.spec = spec_, .keys = branch, .session_id = "t"});
  const auto watch = Watch();
  Store(ChainNamed("later", 1));
  const std::vector<BlockEvent> events = Drain(*watch);
  ASSERT_GE(events.size(), 3u);
  std::vector<BlockKey> keys;
  size_t end = 0;
  for (; end < events.size() && events[end].kind != Kind::kSnapshotEnd; ++end) {
    EXPECT_EQ(events[end].kind, Kind::kStored);
    EXPECT_EQ(events[end].tenant.name, "default");
    EXPECT_EQ(events[end].fingerprint, FingerprintOf(kSpec));
    keys.insert(keys.end(), events[end].keys.begin(), events[end].keys.end());
  }
  EXPECT_THAT(keys,
              ::testing::UnorderedElementsAre(chain[0], chain[1], chain[2], branch[1], branch[2]));
  EXPECT_EQ(keys[0], chain[0]);
  ASSERT_EQ(events.size(), end + 2);
  EXPECT_THAT(events[end + 1].keys, ElementsAre(KeyNamed("later/0")));
}

TEST_F(Watching, AnEmptyShardHasAnEmptySnapshot) {
  const std::vector<BlockEvent> events = Drain(*Watch());
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].kind, Kind::kSnapshotEnd);
}

TEST_F(Watching, ChangesComeInTheOrderInWhichTheyTookEffect) {
  const auto watch = Watch();
  Drain(*watch);
  const std::vector<BlockKey> chain = ChainNamed("a", 2);
  Store(me_, kSpec, {.spec = spec_, .keys = chain, .session_id = "s"});
  engine_->Remove(me_, spec_, {{chain[1]}}).IgnoreError();
  Store(chain);
  engine_->Quarantine(Tenant{"default"}, FingerprintOf(kSpec), chain[0], "test");
  const std::vector<BlockEvent> events = Drain(*watch);
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0].kind, Kind::kStored);
  EXPECT_EQ(events[0].keys, chain);
  EXPECT_EQ(events[0].session_id, "s");
  EXPECT_EQ(events[1].kind, Kind::kRemoved);
  EXPECT_THAT(events[1].keys, ElementsAre(chain[1]));
  EXPECT_EQ(events[2].kind, Kind::kStored);
  EXPECT_THAT(events[2].keys, ElementsAre(chain[1]));
  EXPECT_EQ(events[3].kind, Kind::kRemoved);
  EXPECT_THAT(events[3].keys, ElementsAre(chain[1], chain[0]));
}

TEST_F(Watching, ReplayingTheEventsGivesWhatIsStored) {
  Start(4 * kMiB);
  const auto watch = Watch();
  for (int i = 0; i < 40; ++i) Store(ChainNamed(absl::StrCat("c", i), 7));
  std::vector<BlockKey> known;
  for (const BlockEvent& event : Drain(*watch)) {
    for (const BlockKey& key : event.keys) {
      if (event.kind == Kind::kStored) known.push_back(key);
      if (event.kind == Kind::kRemoved) known.erase(std::find(known.begin(), known.end(), key));
    }
  }
  EXPECT_EQ(known.size(), engine_->Describe(Tenant{"default"}).blocks);
  for (int i = 0; i < 40; ++i) {
    const std::vector<BlockKey> chain = ChainNamed(absl::StrCat("c", i), 7);
    const uint32_t run = Run(chain);
    for (uint32_t j = 0; j < 7; ++j) {
      EXPECT_EQ(std::count(known.begin(), known.end(), chain[j]), j < run ? 1 : 0);
    }
  }
}

TEST_F(Watching, AWatcherThatFallsBehindIsCutOffAndOthersAreNot) {
  const auto slow = Watch(), fast = Watch();
  const std::vector<BlockKey> chain = ChainNamed("a", 1);
  for (size_t i = 0; i < limits::kWatchQueueEventsMax / 2 + 1; ++i) {
    Store(chain);
    engine_->Remove(me_, spec_, chain).IgnoreError();
    if (i % 1000 == 0) Drain(*fast);
  }
  Drain(*fast);
  size_t taken = 0;
  auto event = slow->Next(absl::InfinitePast());
  for (; event.ok(); event = slow->Next(absl::InfinitePast())) {
    ASSERT_TRUE(event->has_value());
    ++taken;
  }
  EXPECT_EQ(CodeAndReason(event.status()), "RESOURCE_EXHAUSTED WATCHER_TOO_SLOW");
  EXPECT_EQ(taken, limits::kWatchQueueEventsMax + 1);  // the end of the snapshot is not counted
  EXPECT_EQ(CounterValue("cut_off_watchers_total"), 1u);
}

TEST_F(Watching, WatchersBeyondTheLimitAreRefusedUntilOneEnds) {
  std::vector<std::unique_ptr<BlockWatch>> watches;
  for (size_t i = 0; i < limits::kWatchersMax; ++i) watches.push_back(Watch());
  EXPECT_EQ(CodeAndReason(engine_->Watch().status()), "RESOURCE_EXHAUSTED WATCHERS_MAX");
  watches.pop_back();
  EXPECT_TRUE(engine_->Watch().ok());
}

TEST_F(Watching, TheCallbackComesWithEventsAndMayCallTheEngine) {
  const auto watch = Watch();
  std::atomic<int> calls{0};
  std::vector<BlockEvent> seen;
  watch->NotifyWith([&] {
    ++calls;
    engine_->Describe(Tenant{"default"});
    for (BlockEvent& event : Drain(*watch)) seen.push_back(std::move(event));
  });
  EXPECT_EQ(calls, 1);  // the snapshot was waiting
  Store(ChainNamed("a", 2));
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(seen.size(), 2u);
  Run(ChainNamed("a", 2));
  EXPECT_EQ(calls, 2);
}

TEST_F(Watching, AWatchThatEndedIsNotCalled) {
  auto watch = Watch();
  int calls = 0;
  watch->NotifyWith([&] { ++calls; });
  watch = nullptr;
  calls = 0;
  Store(ChainNamed("a", 1));
  EXPECT_EQ(calls, 0);
}

}  // namespace
}  // namespace reprise::shard
