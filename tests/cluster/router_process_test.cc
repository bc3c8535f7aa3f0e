// A router and shards as processes: what is offered when shards store, die, stop, go on, join and
// restart.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cluster/placement/placement.h"
#include "proto/types/refusal.h"
#include "tests/cluster/router_cluster.h"

namespace reprise::testing {
namespace {

using ::testing::HasSubstr;

const CacheSpec kSpec = SpecOf(16 << 10);
constexpr uint32_t kBlocks = 12;

// A session stored at home and replicated.
struct StoredSession {
  std::string session;
  std::vector<BlockKey> keys;
  std::string home;
  std::string replica;
  std::map<std::string, uint32_t> Both() const { return {{home, kBlocks}, {replica, kBlocks}}; }
};

void Store(RouterCluster& cluster, const std::string& session, StoredSession& stored) {
  stored.session = session;
  stored.keys = ChainNamed(session, kBlocks);
  const v1::RouteSessionResponse route = cluster.Route(session);
  stored.home = route.home().shard_id();
  ASSERT_GE(route.fallbacks_size(), 1);
  stored.replica = route.fallbacks(0).shard_id();
  const auto link = cluster.Link(stored.home);
  const absl::Status status = StoreSession(*link, kSpec, stored.keys, session);
  ASSERT_TRUE(status.ok()) << status;
  ASSERT_TRUE(cluster.AwaitRuns(kSpec, stored.keys, stored.Both()));
}

TEST(RouterProcessTest, LocateFindsOwnerAndReplicaAndBothServeTheRightBytes) {
  RouterCluster cluster;
  cluster.Start(3);
  StoredSession stored;
  ASSERT_NO_FATAL_FAILURE(Store(cluster, "chat", stored));
  for (const std::string& id : {stored.home, stored.replica}) {
    const auto fetched = FetchChain(*cluster.Link(id), kSpec, stored.keys);
    ASSERT_TRUE(fetched.ok()) << fetched.status();
    EXPECT_EQ(*fetched, kBlocks);
  }
  // The longest prefix counts, whatever follows it.
  auto longer = stored.keys;
  longer.push_back(KeyNamed("never stored"));
  EXPECT_EQ(cluster.Locate(kSpec, longer), stored.Both());
  EXPECT_TRUE(cluster.Locate(SpecOf(16 << 10, "other-model"), stored.keys).empty());
  const v1::RouteSessionResponse route = cluster.Route("chat", &kSpec, longer);
  EXPECT_EQ(route.home().shard_id(), stored.home);
  EXPECT_EQ(route.runs_size(), 2);
}

TEST(RouterProcessTest, AKilledOwnerIsOfferedNoMoreAndItsReplicaServes) {
  RouterCluster cluster;
  cluster.Start(3);
  StoredSession stored;
  ASSERT_NO_FATAL_FAILURE(Store(cluster, "chat", stored));
  cluster.shard(stored.home).Kill();
  ASSERT_TRUE(cluster.AwaitRuns(kSpec, stored.keys, {{stored.replica, kBlocks}}));
  const v1::RouteSessionResponse route = cluster.Route("chat", &kSpec, stored.keys);
  EXPECT_EQ(route.home().shard_id(), stored.replica);
  for (const auto& fallback : route.fallbacks()) EXPECT_NE(fallback.shard_id(), stored.home);
  const auto fetched = FetchChain(*cluster.Link(stored.replica), kSpec, stored.keys);
  ASSERT_TRUE(fetched.ok()) << fetched.status();
  EXPECT_EQ(*fetched, kBlocks);
}

TEST(RouterProcessTest, AStoppedOwnerIsOfferedNoMoreAndResyncsWhenItGoesOn) {
  RouterCluster cluster;
  cluster.Start(3);
  StoredSession stored;
  ASSERT_NO_FATAL_FAILURE(Store(cluster, "chat", stored));
  cluster.shard(stored.home).Stop();
  ASSERT_TRUE(cluster.AwaitRuns(kSpec, stored.keys, {{stored.replica, kBlocks}}));
  EXPECT_EQ(cluster.Knowledge(stored.home).state(), v1::SHARD_STATE_DEAD);
  // Its silence breaks the old feed off.
  ASSERT_TRUE(Eventually([&] { return cluster.Knowledge(stored.home).resyncs() >= 1; }));
  cluster.shard(stored.home).Continue();
  ASSERT_TRUE(cluster.AwaitRuns(kSpec, stored.keys, stored.Both()));
  ASSERT_TRUE(cluster.AwaitState(v1::SHARD_STATE_ALIVE, 3));
  EXPECT_EQ(cluster.Knowledge(stored.home).blocks(), kBlocks);
}

TEST(RouterProcessTest, AShardThatJoinsTheMembersFileIsUsedAndMovesOnlyItsShare) {
  RouterCluster cluster;
  cluster.Start(2);
  StoredSession stored;
  ASSERT_NO_FATAL_FAILURE(Store(cluster, "chat", stored));
  const uint64_t epoch = cluster.Describe().epoch();
  cluster.StartShard("shard-2");
  cluster.WriteMembers();
  ASSERT_TRUE(cluster.AwaitState(v1::SHARD_STATE_ALIVE, 3));
  EXPECT_GT(cluster.Describe().epoch(), epoch);
  EXPECT_EQ(cluster.Route("chat").home().shard_id(), stored.home) << "a known session stays";
  const std::vector<ShardId> three = {{"shard-0"}, {"shard-1"}, {"shard-2"}};
  const std::vector<ShardId> two = {{"shard-0"}, {"shard-1"}};
  int moved = 0;
  constexpr int kSessions = 600;
  for (int i = 0; i < kSessions; ++i) {
    const std::string session = absl::StrCat("new-", i);
    const std::string home = cluster.Route(session).home().shard_id();
    ASSERT_EQ(home, cluster::PlacementOrder(session, three)[0].name);
    moved += home != cluster::PlacementOrder(session, two)[0].name ? 1 : 0;
  }
  EXPECT_LE(moved, kSessions * (1.0 / 3 + 0.06));
}

TEST(RouterProcessTest, ARouterStartedAnewKnowsWhatTheLastOneKnew) {
  RouterCluster cluster;
  cluster.Start(3);
  StoredSession stored;
  ASSERT_NO_FATAL_FAILURE(Store(cluster, "chat", stored));
  const uint64_t epoch = cluster.Describe().epoch();
  cluster.router().Kill();
  cluster.StartRouter();
  ASSERT_TRUE(cluster.AwaitState(v1::SHARD_STATE_ALIVE, 3));
  ASSERT_TRUE(cluster.AwaitRuns(kSpec, stored.keys, stored.Both()));
  EXPECT_EQ(cluster.Route("chat").home().shard_id(), stored.home);
  EXPECT_GT(cluster.Describe().epoch(), epoch);
}

TEST(RouterProcessTest, AShardThatRestartsElsewhereIsFoundWithoutItsOldBlocks) {
  RouterCluster cluster;
  cluster.Start(3);
  StoredSession stored;
  ASSERT_NO_FATAL_FAILURE(Store(cluster, "chat", stored));
  cluster.shard(stored.home).Kill();
  ASSERT_TRUE(cluster.AwaitState(v1::SHARD_STATE_DEAD, 1));
  cluster.StartShard(stored.home);
  cluster.WriteMembers();
  ASSERT_TRUE(cluster.AwaitState(v1::SHARD_STATE_ALIVE, 3));
  ASSERT_TRUE(cluster.AwaitRuns(kSpec, stored.keys, {{stored.replica, kBlocks}}));
}

TEST(RouterProcessTest, ATopologyWatcherIsToldOfADeath) {
  RouterCluster cluster;
  cluster.Start(3);
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
  const auto stream = cluster.stub().WatchTopology(&context, {});
  v1::WatchTopologyResponse topology;
  ASSERT_TRUE(stream->Read(&topology));
  EXPECT_EQ(topology.shards_size(), 3);
  uint64_t epoch = topology.epoch();
  cluster.shard("shard-1").Kill();
  bool dead = false;
  while (!dead && stream->Read(&topology)) {
    EXPECT_GT(topology.epoch(), epoch);
    epoch = topology.epoch();
    dead = topology.shards(1).state() == v1::SHARD_STATE_DEAD;
  }
  EXPECT_TRUE(dead);
  cluster.router().Signal(SIGTERM);
  while (stream->Read(&topology)) {
  }
  const absl::Status status = wire::FromGrpcStatus(stream->Finish());
  EXPECT_EQ(RefusalReason(status), "ROUTER_STOPS") << status;
}

TEST(RouterProcessTest, WithoutALivingShardTheRefusalSaysSo) {
  RouterCluster cluster;
  cluster.StartRouter();
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(Soon()));
  v1::RouteSessionRequest request;
  request.set_session_id("chat");
  v1::RouteSessionResponse response;
  const absl::Status status =
      wire::FromGrpcStatus(cluster.stub().RouteSession(&context, request, &response));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(RefusalReason(status), "NO_SHARD");
}

TEST(RouterProcessTest, HalfACostIsRefused) {
  RouterCluster cluster;
  cluster.Start(1);
  v1::RouteSessionRequest request;
  request.set_session_id("chat");
  v1::RouteSessionResponse response;
  const auto route = [&] {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(Soon()));
    return wire::FromGrpcStatus(cluster.stub().RouteSession(&context, request, &response));
  };
  request.mutable_recompute()->set_block_bytes(4096);
  EXPECT_EQ(RefusalReason(route()), "RECOMPUTE_COST");
  request.mutable_recompute()->set_block_microseconds(100);
  EXPECT_EQ(route(), absl::OkStatus());
}

TEST(RouterProcessTest, ItStopsOnSigtermWithExitCodeZero) {
  RouterCluster cluster;
  cluster.Start(1);
  cluster.router().Signal(SIGTERM);
  EXPECT_EQ(cluster.router().Wait(kPatience), std::optional<int>(0));
}

TEST(RouterProcessTest, PlaintextOnAnAddressThatOthersReachNeedsToBeAskedFor) {
  Process router({BinFolder() + "/reprise-router", "--listen", "0.0.0.0:0"});
  const std::optional<int> status = router.Wait(kPatience);
  ASSERT_TRUE(status.has_value());
  EXPECT_TRUE(WIFEXITED(*status) && WEXITSTATUS(*status) == 1);
}

}  // namespace
}  // namespace reprise::testing
