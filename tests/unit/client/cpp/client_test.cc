// The client's verbs over a cluster in this process.
#include "client/cpp/client.h"

#include <thread>

#include "absl/synchronization/notification.h"
#include "client/cpp/explain_json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "proto/types/clock.h"
#include "proto/types/refusal.h"
#include "tests/unit/client/cpp/fake_cluster.h"

namespace reprise::client {
namespace {

using reprise::testing::ChainNamed;
using reprise::testing::FillContent;
using reprise::testing::HasContent;
using reprise::testing::SmallSpec;
using testing::FakeCluster;
using testing::FakeShard;

constexpr char kSession[] = "user-1";
// Above kHungCallMin, so that running into it says that a shard hangs.
constexpr absl::Duration kShort = absl::Milliseconds(600);

std::vector<BlockKey> Prefix(const std::vector<BlockKey>& keys, size_t blocks) {
  return {keys.begin(), keys.begin() + blocks};
}

// Blocks of a chain in memory, one buffer each.
struct Blocks {
  Blocks(const ClientSpec& spec, const std::vector<BlockKey>& keys, bool fill) {
    for (const BlockKey& key : keys) {
      bytes.emplace_back(spec.layout.block_bytes);
      if (fill) FillContent(key, 0, bytes.back());
    }
  }
  CallerMemory Memory(size_t first = 0) {
    CallerMemory memory;
    for (size_t i = first; i < bytes.size(); ++i) memory.buffers.push_back(bytes[i].data());
    return memory;
  }
  std::vector<std::vector<uint8_t>> bytes;
};

class ClientTest : public ::testing::Test {
 protected:
  ClientTest()
      : cluster_(3), client_(cluster_.MakeClient()), spec_(*client_->OpenSpec(SmallSpec())) {}

  StoreResult Store(const std::vector<BlockKey>& keys, uint32_t first = 0,
                    Client* client = nullptr) {
    Blocks blocks(*spec_, keys, true);
    auto result = (client != nullptr ? client : client_.get())
                      ->Store({.spec = spec_,
                               .keys = keys,
                               .first = first,
                               .session = kSession,
                               .memory = blocks.Memory(first)});
    REPRISE_CHECK(result.ok());
    return *result;
  }
  // Straight into one shard, as its replicator would.
  void Put(FakeShard& shard, const std::vector<BlockKey>& keys) {
    auto direct = cluster_.MakeClient({.shards = {shard.address()}});
    ASSERT_EQ(Store(keys, 0, direct.get()).stored, keys.size());
  }
  AcquireResult Acquire(const std::vector<BlockKey>& keys, absl::Duration timeout = {},
                        uint32_t first_block = 0) {
    auto result = client_->Acquire({.spec = spec_,
                                    .keys = keys,
                                    .session = kSession,
                                    .first_block = first_block,
                                    .timeout = timeout});
    REPRISE_CHECK(result.ok());
    return *result;
  }
  // Fetches the whole run, and fails the test when a block that counts has other bytes than were
  // stored.
  FetchResult Fetch(const std::shared_ptr<client::Run>& run, const std::vector<BlockKey>& keys,
                    uint32_t first = 0, absl::Duration timeout = {}) {
    Blocks blocks(*spec_, keys, false);
    auto result = client_->Fetch(run, {.first = first,
                                       .count = run->blocks() - first,
                                       .memory = blocks.Memory(first),
                                       .timeout = timeout});
    REPRISE_CHECK(result.ok());
    for (uint32_t i = first; i < first + result->blocks; ++i) {
      EXPECT_TRUE(HasContent(keys[i], 0, blocks.bytes[i])) << "block " << i;
    }
    return *result;
  }
  void AwaitNoLeases() {
    // Releases run on the client's threads: once those are joined, all are done.
    client_.reset();
    for (auto& shard : cluster_.shards())
      EXPECT_EQ(shard->Described("leases"), 0u) << shard->id().name;
  }

  FakeCluster cluster_;
  std::unique_ptr<Client> client_;
  std::shared_ptr<const ClientSpec> spec_;
};

TEST_F(ClientTest, WhatIsStoredIsFoundAndComesBackByteForByte) {
  const auto keys = ChainNamed("chain", 20);
  const StoreResult stored = Store(keys);
  EXPECT_TRUE(stored.status.ok()) << stored.status;
  EXPECT_EQ(stored.stored, 20u);
  EXPECT_EQ(stored.bytes, 20 * spec_->layout.block_bytes);
  EXPECT_EQ(cluster_.Home(kSession).Described("blocks"), 20u);
  const AcquireResult acquired = Acquire(keys);
  EXPECT_TRUE(acquired.status.ok()) << acquired.status;
  ASSERT_EQ(acquired.run->blocks(), 20u);
  const FetchResult fetched = Fetch(acquired.run, keys);
  EXPECT_TRUE(fetched.status.ok()) << fetched.status;
  EXPECT_EQ(fetched.blocks, 20u);
  EXPECT_EQ(fetched.shards, 1u);
  EXPECT_EQ(fetched.by_lane[static_cast<size_t>(LaneKind::kStream)], 20u);
  EXPECT_EQ(fetched.by_tier[static_cast<size_t>(Tier::kDram)], 20u);
}

TEST_F(ClientTest, AMissIsARunOfNoBlocksAndNoError) {
  const AcquireResult acquired = Acquire(ChainNamed("never stored", 5));
  EXPECT_TRUE(acquired.status.ok()) << acquired.status;
  EXPECT_EQ(acquired.run->blocks(), 0u);
}

TEST_F(ClientTest, ALongerPromptFindsThePrefixThatIsStored) {
  const auto keys = ChainNamed("chain", 12);
  Store(Prefix(keys, 7));
  const AcquireResult acquired = Acquire(keys);
  EXPECT_EQ(acquired.run->blocks(), 7u);
  EXPECT_EQ(Fetch(acquired.run, keys).blocks, 7u);
}

TEST_F(ClientTest, BlocksThatTheCallerHasAreNeitherLeasedNorFetched) {
  const auto keys = ChainNamed("chain", 10);
  Store(keys);
  const AcquireResult acquired = Acquire(keys, {}, 6);
  EXPECT_EQ(acquired.run->blocks(), 10u);
  EXPECT_EQ(Fetch(acquired.run, keys, 6).blocks, 4u);
  Blocks blocks(*spec_, keys, false);
  const auto refused =
      client_->Fetch(acquired.run, {.first = 5, .count = 1, .memory = blocks.Memory()});
  EXPECT_TRUE(absl::IsInvalidArgument(refused.status())) << refused.status();
}

TEST_F(ClientTest, WhatIsPresentIsNotSentAgain) {
  const auto keys = ChainNamed("chain", 9);
  Store(Prefix(keys, 5));
  const StoreResult again = Store(keys);
  EXPECT_EQ(again.present, 5u);
  EXPECT_EQ(again.stored, 4u);
  EXPECT_EQ(again.bytes, 4 * spec_->layout.block_bytes);
}

TEST_F(ClientTest, AChainIsContinuedWithItsNewBlocksAlone) {
  const auto keys = ChainNamed("chain", 9);
  Store(Prefix(keys, 5));
  const StoreResult rest = Store(keys, 5);
  EXPECT_EQ(rest.stored, 4u);
  EXPECT_EQ(Acquire(keys).run->blocks(), 9u);
}

TEST_F(ClientTest, AChainWithoutItsStartIsRefusedAndLeavesNothingBehind) {
  const StoreResult orphan = Store(ChainNamed("chain", 9), 5);
  EXPECT_EQ(orphan.refused, 4u);
  EXPECT_TRUE(absl::IsFailedPrecondition(orphan.status)) << orphan.status;
  for (auto& shard : cluster_.shards()) EXPECT_EQ(shard->Described("reservations"), 0u);
}

TEST_F(ClientTest, TheReplicaServesWhenHomeIsDead) {
  const auto keys = ChainNamed("chain", 8);
  Store(keys);
  Put(cluster_.Placed(kSession, 1), keys);
  cluster_.Home(kSession).trouble.down = true;
  const AcquireResult acquired = Acquire(keys);
  ASSERT_EQ(acquired.run->blocks(), 8u);
  EXPECT_EQ(Fetch(acquired.run, keys).blocks, 8u);
}

TEST_F(ClientTest, TheReplicaServesWhenTheRouterIsDeadToo) {
  const auto keys = ChainNamed("chain", 8);
  Store(keys);
  Put(cluster_.Placed(kSession, 1), keys);
  cluster_.router_down = true;
  cluster_.Home(kSession).trouble.down = true;
  EXPECT_EQ(Acquire(keys).run->blocks(), 8u);
}

TEST_F(ClientTest, AReplicaThatTheRouterDoesNotKnowYetIsFoundWhenHomeIsDead) {
  const auto keys = ChainNamed("chain", 8);
  Put(cluster_.Placed(kSession, 1), keys);
  cluster_.router_blind = true;
  Acquire(ChainNamed("warm", 1));
  cluster_.Home(kSession).trouble.down = true;
  EXPECT_EQ(Acquire(keys).run->blocks(), 8u);
}

TEST_F(ClientTest, ALongerRunElsewhereIsLeasedThereFromWhereHomeEnds) {
  const auto keys = ChainNamed("chain", 10);
  Put(cluster_.Home(kSession), Prefix(keys, 4));
  Put(cluster_.Placed(kSession, 2), keys);
  const AcquireResult acquired = Acquire(keys);
  ASSERT_EQ(acquired.run->blocks(), 10u);
  const auto segments = acquired.run->segments();
  ASSERT_EQ(segments.size(), 2u);
  EXPECT_EQ(segments[1].first, 4u);
  const FetchResult fetched = Fetch(acquired.run, keys);
  EXPECT_EQ(fetched.blocks, 10u);
  EXPECT_EQ(fetched.shards, 2u);
}

TEST_F(ClientTest, AWrongHintOfTheRouterCostsOneCallAndNoBlock) {
  const auto keys = ChainNamed("chain", 10);
  Put(cluster_.Home(kSession), Prefix(keys, 4));
  FakeShard& wrong = cluster_.Placed(kSession, 2);
  cluster_.router_errs_on = &wrong;
  const AcquireResult acquired = Acquire(keys);
  EXPECT_EQ(acquired.status, absl::OkStatus());
  EXPECT_EQ(acquired.run->blocks(), 4u);
  EXPECT_EQ(Fetch(acquired.run, keys).blocks, 4u);
  EXPECT_EQ(cluster_.Home(kSession).trouble.acquires, 1);
  EXPECT_EQ(wrong.trouble.acquires, 1);
  EXPECT_EQ(cluster_.router_calls, 1);
}

TEST_F(ClientTest, ALongRunIsReadFromTwoShardsAtOnceAndFromOneWhenTheOtherDies) {
  CacheSpec large = SmallSpec(16, 64);
  large.kv_heads = 8;
  large.head_dim = 64;
  FakeCluster cluster(3, 160 << 20);
  auto client = cluster.MakeClient();
  const auto spec = *client->OpenSpec(large);
  const auto keys = ChainNamed("long", limits::kParallelFetchBytesMin / spec->layout.block_bytes);
  Blocks blocks(*spec, keys, true), back(*spec, keys, false);
  for (size_t rank : {0, 1}) {
    auto direct = cluster.MakeClient({.shards = {cluster.Placed(kSession, rank).address()}});
    ASSERT_EQ(direct->Store({.spec = spec, .keys = keys, .memory = blocks.Memory()})->stored,
              keys.size());
  }
  const auto count = static_cast<uint32_t>(keys.size());
  for (bool dies : {false, true}) {
    const auto acquired = client->Acquire({.spec = spec, .keys = keys, .session = kSession});
    ASSERT_EQ(acquired->run->blocks(), count);
    if (dies) cluster.Placed(kSession, 1).trouble.die_at_block = 2;
    const auto fetched =
        client->Fetch(acquired->run, {.first = 0, .count = count, .memory = back.Memory()});
    EXPECT_EQ(fetched->blocks, count) << fetched->status;
    EXPECT_EQ(fetched->shards, 2u);
    EXPECT_EQ(back.bytes, blocks.bytes);
  }
}

TEST_F(ClientTest, AShardThatDiesInTheMiddleOfAReadIsReplacedByItsReplica) {
  const auto keys = ChainNamed("chain", 12);
  Store(keys);
  Put(cluster_.Placed(kSession, 1), keys);
  const AcquireResult acquired = Acquire(keys);
  cluster_.Home(kSession).trouble.die_at_block = 5;
  const FetchResult fetched = Fetch(acquired.run, keys);
  EXPECT_EQ(fetched.blocks, 12u);
  EXPECT_EQ(fetched.shards, 2u);
  EXPECT_EQ(client_->counters().blocks_rescued.load(), 7u);
}

TEST_F(ClientTest, AShardThatDiesWithoutAReplicaLeavesAShorterRun) {
  const auto keys = ChainNamed("chain", 12);
  Store(keys);
  const AcquireResult acquired = Acquire(keys);
  cluster_.Home(kSession).trouble.die_at_block = 5;
  const FetchResult fetched = Fetch(acquired.run, keys);
  EXPECT_EQ(fetched.blocks, 5u);
  EXPECT_FALSE(fetched.status.ok());
}

TEST_F(ClientTest, ACorruptBlockEndsTheRunThereAndIsCounted) {
  const auto keys = ChainNamed("chain", 12);
  Store(keys);
  Put(cluster_.Placed(kSession, 1), keys);
  const AcquireResult acquired = Acquire(keys);
  cluster_.Home(kSession).trouble.corrupt_block = 3;
  const FetchResult fetched = Fetch(acquired.run, keys);
  EXPECT_EQ(fetched.blocks, 3u);
  EXPECT_EQ(fetched.corrupt, 1u);
  EXPECT_EQ(RefusalReason(fetched.status), "BLOCK_CORRUPT");
  EXPECT_EQ(client_->counters().blocks_corrupt.load(), 1u);
}

TEST_F(ClientTest, CallsToAShardThatHangsReturnByTheirDeadlineAndTheNextOnesDoNotAskIt) {
  const auto keys = ChainNamed("chain", 6);
  Store(keys);
  FakeShard& home = cluster_.Home(kSession);
  home.trouble.hung = true;
  const AcquireResult first = Acquire(keys, 3 * kShort);
  EXPECT_EQ(first.run->blocks(), 0u);
  EXPECT_TRUE(absl::IsDeadlineExceeded(first.status)) << first.status;
  const int asked = home.trouble.acquires;
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Acquire(keys, 3 * kShort).run->blocks(), 0u);
  EXPECT_EQ(home.trouble.acquires, asked);
}

TEST_F(ClientTest, AShardThatCameBackIsUsedAgain) {
  const auto keys = ChainNamed("chain", 6);
  Store(keys);
  FakeShard& home = cluster_.Home(kSession);
  home.trouble.hung = true;
  Acquire(keys, 3 * kShort);
  home.trouble.hung = false;
  const absl::Time give_up = absl::Now() + absl::Seconds(30);
  while (Acquire(keys).run->blocks() == 0 && absl::Now() < give_up)
    absl::SleepFor(absl::Milliseconds(5));
  EXPECT_EQ(Acquire(keys).run->blocks(), 6u);
}

TEST_F(ClientTest, AShardThatRestartedIsAttachedToAgainAtOnce) {
  const auto keys = ChainNamed("chain", 6);
  Store(keys);
  cluster_.Home(kSession).Restart();
  EXPECT_EQ(Acquire(keys).run->blocks(), 0u);
  EXPECT_EQ(Store(keys).stored, 6u);
  EXPECT_EQ(Acquire(keys).run->blocks(), 6u);
}

TEST_F(ClientTest, NoCallWaitsForTheEndOfALink) {
  const auto keys = ChainNamed("chain", 6);
  Store(keys);
  FakeShard& home = cluster_.Home(kSession);
  home.trouble.stuck = true;
  // Whoever waits is set free, late.
  absl::Notification done;
  std::thread patience([&] {
    done.WaitForNotificationWithTimeout(absl::Seconds(10));
    home.trouble.stuck = false;
  });
  const absl::Time started = MonotonicClock().Now();
  for (int i = 0; i < 3; ++i) {
    // Its run may be the last owner of the link.
    AcquireResult held = Acquire(keys);
    EXPECT_EQ(held.run->blocks(), 6u);
    home.Restart();
    held.run.reset();
    EXPECT_EQ(Acquire(keys).run->blocks(), 0u);
    EXPECT_EQ(Store(keys).stored, 6u);
  }
  EXPECT_LT(MonotonicClock().Now() - started, absl::Seconds(5));
  done.Notify();
  patience.join();
}

TEST_F(ClientTest, AStoreGoesToTheNextShardWhenHomeIsDeadDrainingOrHung) {
  int number = 0;
  const auto store_next = [&] {
    const auto keys = ChainNamed(absl::StrCat("chain ", ++number), 4);
    EXPECT_EQ(Store(keys).stored, 4u);
    EXPECT_EQ(cluster_.Placed(kSession, 1).Described("blocks"), 4u * number);
  };
  FakeShard& home = cluster_.Home(kSession);
  home.trouble.draining = true;
  store_next();
  home.trouble.draining = false;
  home.trouble.down = true;
  store_next();
  EXPECT_EQ(home.Described("blocks"), 0u);
}

TEST_F(ClientTest, AFullShardRefusesAndSaysSo) {
  FakeCluster small(1, 1 << 20);
  auto client = small.MakeClient();
  const auto keys = ChainNamed("chain", 20000);
  const StoreResult stored = Store(keys, 0, client.get());
  EXPECT_GT(stored.stored, 0u);
  EXPECT_GT(stored.refused, 0u);
  EXPECT_EQ(stored.stored + stored.refused, 20000u);
  EXPECT_TRUE(absl::IsResourceExhausted(stored.status)) << stored.status;
}

TEST_F(ClientTest, LeasesEndWithTheirRun) {
  const auto keys = ChainNamed("chain", 6);
  Store(keys);
  AcquireResult acquired = Acquire(keys);
  EXPECT_EQ(cluster_.Home(kSession).Described("leases"), 1u);
  acquired.run.reset();
  AwaitNoLeases();
}

TEST_F(ClientTest, APrefetchedRunIsTakenOverByTheNextAcquire) {
  const auto keys = ChainNamed("chain", 6);
  Store(keys);
  ASSERT_TRUE(client_->Prefetch({.spec = spec_, .keys = keys, .session = kSession}).ok());
  const absl::Time give_up = absl::Now() + absl::Seconds(30);
  while (cluster_.Home(kSession).Described("leases") == 0 && absl::Now() < give_up) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  // The lease is there a moment before the run is put by.
  AcquireResult acquired = Acquire(keys);
  while (client_->counters().prefetch_hits == 0 && absl::Now() < give_up) acquired = Acquire(keys);
  EXPECT_EQ(client_->counters().prefetch_hits.load(), 1u);
  EXPECT_EQ(Fetch(acquired.run, keys).blocks, 6u);
}

TEST_F(ClientTest, NonBlockingFormsGiveTheSameAnswers) {
  const auto keys = ChainNamed("chain", 10);
  Blocks blocks(*spec_, keys, true);
  auto store = *client_->StartStore(
      {.spec = spec_, .keys = keys, .session = kSession, .memory = blocks.Memory()});
  ASSERT_TRUE(store.Wait(absl::Seconds(30)));
  EXPECT_EQ(store.Take().stored, 10u);
  auto acquire = *client_->StartAcquire({.spec = spec_, .keys = keys, .session = kSession});
  ASSERT_TRUE(acquire.Wait(absl::Seconds(30)));
  const AcquireResult acquired = acquire.Take();
  Blocks back(*spec_, keys, false);
  auto fetch =
      *client_->StartFetch(acquired.run, {.first = 0, .count = 10, .memory = back.Memory()});
  ASSERT_TRUE(fetch.Wait(absl::Seconds(30)));
  EXPECT_EQ(fetch.Take().blocks, 10u);
  EXPECT_EQ(back.bytes, blocks.bytes);
}

TEST_F(ClientTest, PartsOfOneChainStartedAtOnceAreStoredInOrder) {
  const auto keys = ChainNamed("chain", 60);
  Blocks blocks(*spec_, keys, true);
  std::vector<Operation<StoreResult>> parts;
  for (uint32_t first = 0; first < 60; first += 5) {
    Blocks& all = blocks;
    CallerMemory memory = all.Memory(first);
    memory.buffers.resize(5);
    parts.push_back(*client_->StartStore({.spec = spec_,
                                          .keys = Prefix(keys, first + 5),
                                          .first = first,
                                          .session = kSession,
                                          .memory = memory}));
  }
  for (auto& part : parts) {
    ASSERT_TRUE(part.Wait(absl::Seconds(30)));
    const StoreResult result = part.Take();
    EXPECT_EQ(result.stored, 5u) << result.status;
  }
  EXPECT_EQ(Acquire(keys).run->blocks(), 60u);
}

TEST_F(ClientTest, ACancelledOperationIsDoneWhileTheShardStillHangs) {
  const auto keys = ChainNamed("chain", 4);
  Store(keys);
  cluster_.Home(kSession).trouble.hung = true;
  // As many as there are threads, and one that waits for a thread.
  std::vector<Operation<AcquireResult>> operations;
  for (size_t i = 0; i <= limits::kClientThreads; ++i) {
    operations.push_back(*client_->StartAcquire(
        {.spec = spec_, .keys = keys, .session = kSession, .timeout = 4 * kShort}));
  }
  operations.back().Cancel();
  EXPECT_TRUE(operations.back().Done());
  EXPECT_TRUE(absl::IsCancelled(operations.back().Take().status));
  for (auto& operation : operations) EXPECT_TRUE(operation.Wait(absl::Seconds(30)));
}

TEST_F(ClientTest, ManyThreadsShareOneClient) {
  constexpr int kThreads = 8, kRounds = 20;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < kRounds; ++round) {
        // Every other chain is one that another thread stores too.
        const auto keys = ChainNamed(absl::StrCat("chain ", round % 2 == 0 ? t : 0, " ", round), 5);
        Blocks blocks(*spec_, keys, true);
        const auto stored = client_->Store({.spec = spec_,
                                            .keys = keys,
                                            .session = absl::StrCat("s", t),
                                            .memory = blocks.Memory()});
        ASSERT_TRUE(stored.ok());
        const auto acquired =
            client_->Acquire({.spec = spec_, .keys = keys, .session = absl::StrCat("s", t)});
        ASSERT_TRUE(acquired.ok());
        if (acquired->run->blocks() > 0) Fetch(acquired->run, keys);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(client_->counters().blocks_corrupt.load(), 0u);
  EXPECT_GE(client_->counters().blocks_fetched.load(), kThreads * kRounds * 5u / 2);
  for (auto& shard : cluster_.shards()) EXPECT_TRUE(shard->engine()->CheckInvariants().ok());
}

TEST_F(ClientTest, StaticShardsNeedNoRouter) {
  std::vector<std::string> addresses;
  for (auto& shard : cluster_.shards()) addresses.push_back(shard->address());
  auto client = cluster_.MakeClient({.shards = addresses});
  const auto keys = ChainNamed("chain", 6);
  EXPECT_EQ(Store(keys, 0, client.get()).stored, 6u);
  EXPECT_EQ(cluster_.Home(kSession).Described("blocks"), 6u);
  EXPECT_EQ(cluster_.router_calls.load(), 0);
  const auto acquired = client->Acquire({.spec = spec_, .keys = keys, .session = kSession});
  EXPECT_EQ(acquired->run->blocks(), 6u);
}

TEST_F(ClientTest, MisuseIsNamed) {
  const auto keys = ChainNamed("chain", 3);
  CallerMemory none;
  const auto store = client_->Store({.spec = spec_, .keys = keys, .memory = none});
  EXPECT_EQ(RefusalReason(store.status()), "MEMORY_FORM");
  EXPECT_EQ(RefusalReason(client_->Acquire({.spec = nullptr, .keys = keys}).status()),
            "SPEC_UNSET");
  EXPECT_EQ(RefusalReason(client_->StartStore({.spec = spec_, .keys = keys, .first = 4}).status()),
            "STORE_FIRST");
  const auto create = [](ClientOptions options) {
    ClientSeams seams;
    seams.connect = [](const cluster::ShardLinkOptions&, absl::Time) {
      return absl::UnavailableError("never asked");
    };
    seams.queries = std::make_unique<FakeCluster::Queries>();
    return RefusalReason(Client::CreateWith(std::move(options), std::move(seams)).status());
  };
  EXPECT_EQ(create({}), "OPTION_ROUTER");
  EXPECT_EQ(create({.routers = {"a:1"}, .shards = {"b:1"}}), "OPTION_ROUTER");
  EXPECT_EQ(create({.routers = {"nowhere"}}), "OPTION_ADDRESS");
  EXPECT_EQ(create({.routers = {"a:1"}, .threads = 0}), "OPTION_THREADS");
  EXPECT_EQ(create({.routers = {"a:1"}, .lanes = {}}), "OPTION_LANES");
}

TEST_F(ClientTest, ExplainTellsWhatEveryShardSays) {
  const auto explained =
      client_->Explain({.fingerprint = spec_->fingerprint, .keys = ChainNamed("chain", 4)});
  ASSERT_TRUE(explained.ok());
  ASSERT_EQ(explained->size(), 3u);
  const auto json = nlohmann::json::parse(ExplainJson(*explained));
  EXPECT_EQ(json["run_blocks"], 3);
  EXPECT_EQ(json["shard_id"], "shard-1");
  EXPECT_EQ(json["shards"].size(), 3u);
  EXPECT_EQ(json["shards"][0]["error"]["code"], 14);
}

TEST_F(ClientTest, StatsAreJsonWithEveryCounter) {
  const auto keys = ChainNamed("chain", 6);
  Store(keys);
  Fetch(Acquire(keys).run, keys);
  const auto stats = nlohmann::json::parse(client_->StatsJson());
  EXPECT_EQ(stats["blocks_stored"], 6);
  EXPECT_EQ(stats["blocks_fetched"], 6);
  EXPECT_EQ(stats["blocks_fetched_by_lane"]["stream"], 6);
  EXPECT_EQ(stats["blocks_fetched_by_shard"][cluster_.Home(kSession).id().name], 6);
  EXPECT_EQ(stats["shards"][0]["breaker"], "closed");
}

}  // namespace
}  // namespace reprise::client
