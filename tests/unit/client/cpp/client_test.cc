// The client's verbs over a cluster in this process.
#include "client/cpp/client.h"

#include <thread>

#include "client/cpp/explain_json.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "proto/types/refusal.h"
#include "tests/unit/client/cpp/client_fixture.h"

namespace reprise::client {
namespace {

using reprise::testing::ChainNamed;
using reprise::testing::SmallSpec;
using testing::Blocks;
using testing::ClientTest;
using testing::FakeCluster;
using testing::FakeShard;
using testing::kSession;
using testing::Prefix;

// Of blocks that it takes few of to fill a batch.
CacheSpec LargeSpec() {
  CacheSpec spec = SmallSpec(16, 64);
  spec.kv_heads = 8;
  spec.head_dim = 64;
  return spec;
}

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

TEST_F(ClientTest, AHomeThatLacksTheStartOfAChainBringsItAndTheConversationIsInOnePlace) {
  const auto keys = ChainNamed("chain", 9);
  FakeShard& home = cluster_.Home(kSession);
  Put(cluster_.Placed(kSession, 1), Prefix(keys, 5));
  home.trouble.pull = [&](const cluster::PullCall& call) {
    EXPECT_EQ(std::vector<BlockKey>(call.keys.begin(), call.keys.end()), Prefix(keys, 5));
    EXPECT_EQ(call.session_id, kSession);
    Put(home, Prefix(keys, 5));
    return cluster::PulledRun{.run_blocks = 5, .pulled_blocks = 5};
  };
  const StoreResult stored = Store(keys, 5);
  EXPECT_TRUE(stored.status.ok()) << stored.status;
  EXPECT_EQ(stored.stored, 4u);
  EXPECT_EQ(home.Described("blocks"), 9u);
  EXPECT_EQ(home.trouble.pulls, 1);
  EXPECT_EQ(client_->counters().pulls.load(), 1u);
  Store(ChainNamed("other", 3));
  EXPECT_EQ(home.trouble.pulls, 1) << "asked only when something is missing";
}

TEST_F(ClientTest, AHomeThatCannotBringTheStartLeavesTheStoreToTheNextShard) {
  const auto keys = ChainNamed("chain", 9);
  Put(cluster_.Placed(kSession, 1), Prefix(keys, 5));
  cluster_.Home(kSession).trouble.pull = [](const cluster::PullCall&) {
    return cluster::PulledRun{.run_blocks = 3, .pulled_blocks = 3};
  };
  const StoreResult stored = Store(keys, 5);
  EXPECT_TRUE(stored.status.ok()) << stored.status;
  EXPECT_EQ(stored.stored, 4u);
  EXPECT_EQ(cluster_.Placed(kSession, 1).Described("blocks"), 9u);
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
  FakeCluster cluster(3, 160 << 20);
  auto client = cluster.MakeClient();
  const auto spec = *client->OpenSpec(LargeSpec());
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

TEST_F(ClientTest, ALaneOfSeveralConnectionsIsAskedForSeveralThingsAtOnce) {
  FakeCluster cluster(1, 160 << 20);
  auto client = cluster.MakeClient();
  const auto spec = *client->OpenSpec(LargeSpec());
  // Two batches, the second of which is worth three connections.
  const auto flow = static_cast<uint32_t>(limits::kFlowBytesMin / spec->layout.block_bytes);
  const auto keys = ChainNamed("long", 7 * flow);
  const auto count = static_cast<uint32_t>(keys.size());
  Blocks blocks(*spec, keys, true), back(*spec, keys, false);
  auto& shard = cluster.Placed(kSession, 0).trouble;
  shard.flows = 4;
  EXPECT_EQ(client->Store({.spec = spec, .keys = keys, .memory = blocks.Memory()})->stored, count);
  EXPECT_EQ(shard.writes, 7);
  const auto acquired = client->Acquire({.spec = spec, .keys = keys});
  ASSERT_EQ(acquired->run->blocks(), count);
  const auto fetched =
      client->Fetch(acquired->run, {.first = 0, .count = count, .memory = back.Memory()});
  EXPECT_EQ(fetched->blocks, count) << fetched->status;
  EXPECT_EQ(fetched->shards, 1u);
  EXPECT_GE(shard.reads, 4);
  EXPECT_EQ(back.bytes, blocks.bytes);
}

TEST_F(ClientTest, AShardWithTooMuchToDoIsAskedForTheRestOnceMore) {
  FakeCluster cluster(1, 160 << 20);
  auto client = cluster.MakeClient();
  const auto spec = *client->OpenSpec(LargeSpec());
  const auto flow = static_cast<uint32_t>(limits::kFlowBytesMin / spec->layout.block_bytes);
  const auto keys = ChainNamed("busy", 4 * flow);
  const auto count = static_cast<uint32_t>(keys.size());
  Blocks blocks(*spec, keys, true);
  auto& shard = cluster.Placed(kSession, 0).trouble;
  ASSERT_EQ(client->Store({.spec = spec, .keys = keys, .memory = blocks.Memory()})->stored, count);
  shard.flows = 4;
  // Two of four pieces at first, and then none; and all of them, which is no shard to ask again.
  for (const int refused : {2, 100}) {
    Blocks back(*spec, keys, false);
    const auto acquired = client->Acquire({.spec = spec, .keys = keys});
    ASSERT_EQ(acquired->run->blocks(), count);
    shard.refused_reads = refused;
    const auto fetched =
        client->Fetch(acquired->run, {.first = 0, .count = count, .memory = back.Memory()});
    EXPECT_EQ(fetched->blocks, refused == 2 ? count : 0u) << fetched->status;
    if (refused == 2) EXPECT_EQ(back.bytes, blocks.bytes);
    if (refused > 2) EXPECT_TRUE(absl::IsResourceExhausted(fetched->status)) << fetched->status;
    shard.refused_reads = 0;
  }
}

TEST_F(ClientTest, AWriteThatFailsLeavesTheBatchesBeforeItStored) {
  for (const uint32_t flows : {1u, 4u}) {
    FakeCluster cluster(1, 160 << 20);
    auto client = cluster.MakeClient();
    const auto spec = *client->OpenSpec(LargeSpec());
    const uint32_t batch =
        static_cast<uint32_t>(std::max(limits::kStoreBatchBytes, limits::kFlowBytesMin * flows) /
                              spec->layout.block_bytes);
    const auto keys = ChainNamed("fails", 3 * batch);
    Blocks blocks(*spec, keys, true);
    auto& shard = cluster.Placed(kSession, 0).trouble;
    shard.flows = flows;
    shard.fail_at_write = static_cast<int>(2 * flows);  // of the last batch
    const auto stored = client->Store({.spec = spec, .keys = keys, .memory = blocks.Memory()});
    EXPECT_FALSE(stored->status.ok());
    EXPECT_EQ(stored->stored, 2 * batch) << "of one connection or of " << flows;
    EXPECT_EQ(stored->refused, batch);
    EXPECT_EQ(client->Acquire({.spec = spec, .keys = keys})->run->blocks(), 2 * batch);
  }
}

TEST_F(ClientTest, WhatIsNotCommittedIsNotStored) {
  for (const int failing : {0, 1, 2}) {
    FakeCluster cluster(1, 160 << 20);
    auto client = cluster.MakeClient();
    const auto spec = *client->OpenSpec(LargeSpec());
    const auto batch = static_cast<uint32_t>(limits::kStoreBatchBytes / spec->layout.block_bytes);
    const auto keys = ChainNamed("commits", 3 * batch);
    Blocks blocks(*spec, keys, true);
    auto& shard = cluster.Placed(kSession, 0).trouble;
    shard.fail_at_commit = failing;
    const auto stored = client->Store({.spec = spec, .keys = keys, .memory = blocks.Memory()});
    EXPECT_EQ(stored->status.code(), absl::StatusCode::kInternal) << failing;
    EXPECT_EQ(stored->stored, failing * batch);
    EXPECT_EQ(stored->refused, (3 - failing) * batch);
    // A commit is looked at when the batch after it was written, and then no other is.
    EXPECT_EQ(shard.writes, std::min(failing + 2, 3));
    EXPECT_EQ(shard.commits_open_max, 1) << "a block is committed after its parent";
    EXPECT_EQ(client->Acquire({.spec = spec, .keys = keys})->run->blocks(), failing * batch);
  }
}

TEST_F(ClientTest, OneConnectionThatFailsIsABatchThatIsNotStored) {
  for (const uint32_t part : {0u, 1u, 3u}) {
    FakeCluster cluster(1, 160 << 20);
    auto client = cluster.MakeClient();
    const auto spec = *client->OpenSpec(LargeSpec());
    const auto flow = static_cast<uint32_t>(limits::kFlowBytesMin / spec->layout.block_bytes);
    const auto keys = ChainNamed("one of four", 8 * flow);
    Blocks blocks(*spec, keys, true);
    auto& shard = cluster.Placed(kSession, 0).trouble;
    shard.flows = 4;
    shard.fail_at_block = static_cast<int>((4 + part) * flow);
    const auto stored = client->Store({.spec = spec, .keys = keys, .memory = blocks.Memory()});
    EXPECT_FALSE(stored->status.ok());
    EXPECT_EQ(stored->stored, 4 * flow) << "of the second batch part " << part << " failed";
    EXPECT_EQ(stored->refused, 4 * flow);
  }
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

TEST_F(ClientTest, APrefetchBringsTheRunToItsHome) {
  const auto keys = ChainNamed("chain", 6);
  FakeShard& home = cluster_.Home(kSession);
  Put(cluster_.Placed(kSession, 2), keys);
  home.trouble.pull = [&](const cluster::PullCall& call) {
    EXPECT_EQ(call.session_id, kSession);
    Put(home, {call.keys.begin(), call.keys.end()});
    return cluster::PulledRun{.run_blocks = 6, .pulled_blocks = 6};
  };
  ASSERT_TRUE(client_->Prefetch({.spec = spec_, .keys = keys, .session = kSession}).ok());
  const absl::Time give_up = absl::Now() + absl::Seconds(30);
  AcquireResult acquired;
  while (client_->counters().prefetch_hits == 0 && absl::Now() < give_up) acquired = Acquire(keys);
  ASSERT_EQ(client_->counters().prefetch_hits.load(), 1u);
  ASSERT_EQ(acquired.run->segments().size(), 1u);
  EXPECT_EQ(acquired.run->segments()[0].address, home.address());
  EXPECT_EQ(home.trouble.pulls, 1);
  EXPECT_EQ(Fetch(acquired.run, keys).blocks, 6u);
}

TEST_F(ClientTest, RoutersAreToldWhatComputingABlockTakes) {
  Acquire(ChainNamed("before", 2));
  EXPECT_EQ(cluster_.compute_block_ns, 0) << "nobody measured it";
  ASSERT_TRUE(client_->NotePrefill(*spec_, 1000, absl::Seconds(1)).ok());
  Acquire(ChainNamed("after", 2));
  EXPECT_EQ(cluster_.compute_block_ns, 1'000'000 * spec_->spec.block_tokens);
  EXPECT_EQ(RefusalReason(client_->NotePrefill(*spec_, 1000, absl::ZeroDuration())),
            "PREFILL_TIME");
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
