// The engine against a reference that keeps one plain set of keys per shard and feed, under random
// events, gaps, deaths, drains and members that come and go.
#include <gtest/gtest.h>

#include <array>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <thread>

#include "service/router/router_engine.h"
#include "tests/unit/router/support.h"

namespace reprise::router {
namespace {

constexpr int kShards = 5;
const KeySpace kSpace = {{"default"}, FingerprintNamed(1)};

// A shard and what the router should make of it.
struct Shard {
  bool member = true;
  std::set<BlockKey> stored;  // what the shard really holds
  FeedId feed;
  uint64_t sequence = 0;
  bool feed_good = false;                      // begun, no gap yet
  std::optional<std::set<BlockKey>> complete;  // what the router knows of
  std::optional<std::set<BlockKey>> incoming;
  std::optional<absl::Time> heard;
};

std::vector<BlockKey> TreeChain(uint64_t chain, size_t blocks) {
  const size_t shared = std::min<size_t>(chain % 9, blocks);
  std::vector<BlockKey> keys = Chain(1000, shared);
  for (size_t i = shared; i < blocks; ++i) keys.push_back(KeyOf(chain, i));
  return keys;
}

class World {
 public:
  explicit World(unsigned seed) : random_(seed) {
    engine_.SetMembers(MembersNumbered(kShards), now_);
  }

  void Step() {
    Shard& shard = shards_[random_() % kShards];
    const int number = static_cast<int>(&shard - shards_.data());
    switch (random_() % 12) {
      case 0:
        Begin(shard, number);
        break;
      case 1:
        ++shard.sequence;
        break;  // a message is lost
      case 2:
        now_ += absl::Milliseconds(random_() % 500);
        break;
      case 3:
        engine_.Tick(now_);
        break;
      case 4:
        if (random_() % 8 == 0) ToggleMember(number);
        break;
      case 5:
      case 6:
        Store(shard);
        break;
      case 7:
        Remove(shard);
        break;
      default:
        Heartbeat(shard);
    }
  }

  void Check() {
    const auto keys = TreeChain(random_() % 30, 1 + random_() % 40);
    std::map<std::string, uint32_t> got;
    uint32_t before = ~0u;
    for (const LocatedRun& run : engine_.Locate(kSpace, keys, now_).runs) {
      ASSERT_LE(run.blocks, before) << "longest first";
      before = run.blocks;
      ASSERT_TRUE(got.emplace(run.shard.id.name, run.blocks).second);
    }
    ASSERT_EQ(got, Want(keys));
    const auto route = engine_.RouteSession(kSpace.tenant, {.session_id = "s"}, now_);
    const bool anyone =
        std::any_of(shards_.begin(), shards_.end(), [&](const Shard& s) { return Alive(s); });
    ASSERT_EQ(route.ok(), anyone);
    if (!anyone) return;
    EXPECT_TRUE(Alive(shards_[route->home.id.name.back() - '0'])) << "a dead home";
  }

 private:
  bool Alive(const Shard& shard) const {
    return shard.member && shard.heard.has_value() &&
           now_ - *shard.heard <= limits::kHeartbeatInterval * limits::kHeartbeatsMissedMax;
  }

  std::map<std::string, uint32_t> Want(std::span<const BlockKey> keys) const {
    std::map<std::string, uint32_t> want;
    for (int i = 0; i < kShards; ++i) {
      if (!Alive(shards_[i])) continue;
      uint32_t best = 0;
      for (const auto* known : {&shards_[i].complete, &shards_[i].incoming}) {
        uint32_t run = 0;
        while (known->has_value() && run < keys.size() && (*known)->contains(keys[run])) ++run;
        best = std::max(best, run);
      }
      if (best > 0) want[absl::StrCat("shard-", i)] = best;
    }
    return want;
  }

  void Begin(Shard& shard, int number) {
    shard.feed = engine_.BeginFeed({absl::StrCat("shard-", number)});
    ASSERT_EQ(static_cast<bool>(shard.feed), shard.member);
    if (!shard.member) return;
    shard.sequence = 0;
    last_sequence_[&shard] = 0;
    shard.feed_good = true;
    shard.incoming.emplace();
    // The snapshot, chain by chain. It may be cut short, as when the connection breaks.
    for (uint64_t chain = 0; chain < 30; ++chain) {
      auto keys = TreeChain(chain, 40);
      const auto end = std::find_if(keys.begin(), keys.end(),
                                    [&](const BlockKey& k) { return !shard.stored.contains(k); });
      keys.erase(end, keys.end());
      if (random_() % 200 == 0) return;
      if (!keys.empty()) Say(shard, Stored(keys, "s"));
    }
    Say(shard, SnapshotEnd());
  }

  template <typename Message>
  void Say(Shard& shard, const Message& message) {
    // A feed's first number is the shard's choice.
    const uint64_t last = last_sequence_[&shard];
    const bool gap = last != 0 && shard.sequence != last;
    ++shard.sequence;
    last_sequence_[&shard] = shard.sequence;
    if (gap) shard.feed_good = false;
    const FeedResult result = engine_.Apply(shard.feed, shard.sequence, message, now_);
    ASSERT_EQ(result == FeedResult::kApplied, shard.feed_good && shard.member);
    if (result == FeedResult::kApplied) {
      shard.heard = now_;
      Know(shard, message);
    }
  }

  void Know(Shard&, const ShardHeartbeat&) {}
  void Know(Shard& shard, const BlockEvent& event) {
    if (event.kind == BlockEvent::Kind::kSnapshotEnd) {
      if (shard.incoming) shard.complete = std::move(shard.incoming);
      shard.incoming.reset();
      return;
    }
    if (event.kind == BlockEvent::Kind::kStored) {
      auto& known = shard.incoming ? *shard.incoming : *shard.complete;
      known.insert(event.keys.begin(), event.keys.end());
      return;
    }
    for (auto* known : {&shard.complete, &shard.incoming}) {
      for (const BlockKey& key : event.keys) {
        if (known->has_value()) (*known)->erase(key);
      }
    }
  }

  void Store(Shard& shard) {
    const auto keys = TreeChain(random_() % 30, 1 + random_() % 40);
    shard.stored.insert(keys.begin(), keys.end());
    Say(shard, Stored(keys, absl::StrCat("s", random_() % 10)));
  }

  void Remove(Shard& shard) {
    // A subtree: a block and whatever chain runs through it.
    const BlockKey key = TreeChain(random_() % 30, 1 + random_() % 40).back();
    std::set<BlockKey> gone;
    for (uint64_t chain = 0; chain < 30; ++chain) {
      const auto keys = TreeChain(chain, 40);
      gone.insert(std::find(keys.begin(), keys.end(), key), keys.end());
    }
    for (const BlockKey& k : gone) shard.stored.erase(k);
    Say(shard, Removed({gone.begin(), gone.end()}));
  }

  void Heartbeat(Shard& shard) { Say(shard, ShardHeartbeat{}); }

  void ToggleMember(int number) {
    shards_[number].member = !shards_[number].member;
    if (!shards_[number].member) {
      Shard& shard = shards_[number];
      shard.complete.reset();
      shard.incoming.reset();
      shard.heard.reset();
      shard.feed_good = false;
    }
    std::vector<cluster::Member> members;
    const auto all = MembersNumbered(kShards);
    for (int i = 0; i < kShards; ++i) {
      if (shards_[i].member) members.push_back(all[i]);
    }
    engine_.SetMembers(members, now_);
  }

  std::mt19937 random_;
  RouterEngine engine_;
  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
  std::array<Shard, kShards> shards_;
  std::map<const Shard*, uint64_t> last_sequence_;
};

TEST(RouterEnginePropertyTest, AnswersAreThoseOfPlainSetsPerShard) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(seed);
  World world(seed);
  for (int i = 0; i < 30'000; ++i) {
    world.Step();
    if (i % 3 == 0) world.Check();
    if (::testing::Test::HasFatalFailure()) FAIL() << "step " << i;
  }
}

TEST(RouterEngineConcurrencyTest, QuestionsAndEventsRunBesideEachOther) {
  RouterEngine engine;
  const absl::Time now = absl::UnixEpoch() + absl::Hours(1);
  engine.SetMembers(MembersNumbered(kShards), now);
  std::vector<std::thread> threads;
  for (int shard = 0; shard < kShards; ++shard) {
    threads.emplace_back([&engine, now, shard] {
      for (int round = 0; round < 4; ++round) {
        const FeedId feed = engine.BeginFeed({absl::StrCat("shard-", shard)});
        uint64_t sequence = 0;
        for (uint64_t chain = 0; chain < 60; ++chain) {
          EXPECT_EQ(engine.Apply(feed, ++sequence, Stored(Chain(chain, 300), "s"), now),
                    FeedResult::kApplied);
        }
        engine.Apply(feed, ++sequence, SnapshotEnd(), now);
        engine.Tick(now);
      }
    });
  }
  for (int asker = 0; asker < 2; ++asker) {
    threads.emplace_back([&engine, now] {
      for (uint64_t i = 0; i < 3000; ++i) {
        const auto keys = Chain(i % 60, 300);
        for (const LocatedRun& run : engine.Locate(kSpace, keys, now).runs) {
          EXPECT_LE(run.blocks, 300u);
        }
        (void)engine.RouteSession(kSpace.tenant, {.fingerprint = kSpace.fingerprint, .keys = keys},
                                  now);
        if (i % 100 == 0) engine.Describe(now);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (uint64_t chain = 0; chain < 60; ++chain) {
    const Located located = engine.Locate(kSpace, Chain(chain, 300), now);
    ASSERT_EQ(located.runs.size(), static_cast<size_t>(kShards));
    for (const LocatedRun& run : located.runs) EXPECT_EQ(run.blocks, 300u);
  }
  engine.Tick(now);
  EXPECT_EQ(engine.Describe(now).index_blocks, 60u * 300u);
}

}  // namespace
}  // namespace reprise::router
