// The feed of WatchBlocks and what overload looks like, against a real server.

#include <gtest/gtest.h>

#include <thread>

#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/wire/events.h"
#include "tests/support/loopback_shard.h"

namespace reprise::testing {
namespace {

class Watcher {
 public:
  explicit Watcher(v1::ShardService::Stub& stub) : stream_(stub.WatchBlocks(&context_, {})) {}
  ~Watcher() {
    if (finished_) return;
    context_.TryCancel();
    v1::WatchBlocksResponse message;
    while (stream_->Read(&message)) {
    }
    stream_->Finish();
  }

  // The next message that is no heartbeat; sequence numbers are checked on the way.
  absl::StatusOr<BlockEvent> NextEvent() {
    while (true) {
      REPRISE_ASSIGN_OR_RETURN(const wire::WatchedMessage message, Next());
      if (const auto* event = std::get_if<BlockEvent>(&message.what)) return *event;
    }
  }
  absl::StatusOr<ShardHeartbeat> NextHeartbeat() {
    while (true) {
      REPRISE_ASSIGN_OR_RETURN(const wire::WatchedMessage message, Next());
      if (const auto* beat = std::get_if<ShardHeartbeat>(&message.what)) return *beat;
    }
  }

 private:
  absl::StatusOr<wire::WatchedMessage> Next() {
    v1::WatchBlocksResponse message;
    if (!stream_->Read(&message)) {
      finished_ = true;
      return wire::FromGrpcStatus(stream_->Finish());
    }
    EXPECT_EQ(message.sequence(), ++sequence_);
    return wire::FromMessage(message);
  }

  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::WatchBlocksResponse>> stream_;
  uint64_t sequence_ = 0;
  bool finished_ = false;
};

class ShardWatchTest : public ::testing::Test {
 protected:
  LoopbackShard shard_{LoopbackShard::Options{.dram_bytes = 32 << 20}};
  const std::unique_ptr<v1::ShardService::Stub> stub_ = shard_.Stub();
  const std::unique_ptr<cluster::ShardLink> link_ = shard_.Connect();
  const CacheSpec spec_ = SpecOf(4096);
};

TEST_F(ShardWatchTest, TheSnapshotComesFirstAndThenEveryChange) {
  const std::vector<BlockKey> before = ChainNamed("before", 4);
  const std::vector<BlockKey> after = ChainNamed("after", 3);
  ASSERT_EQ(*StoreChain(*link_, spec_, before), 4u);
  Watcher watcher(*stub_);
  const absl::StatusOr<BlockEvent> snapshot = watcher.NextEvent();
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_EQ(snapshot->kind, BlockEvent::Kind::kStored);
  EXPECT_EQ(snapshot->keys, before);
  EXPECT_EQ(snapshot->fingerprint, FingerprintOf(spec_));
  EXPECT_EQ(snapshot->tenant.name, "default");
  EXPECT_EQ(watcher.NextEvent()->kind, BlockEvent::Kind::kSnapshotEnd);

  ASSERT_EQ(*StoreChain(*link_, spec_, after), 3u);
  const absl::StatusOr<BlockEvent> stored = watcher.NextEvent();
  EXPECT_EQ(stored->kind, BlockEvent::Kind::kStored);
  EXPECT_EQ(stored->keys, after);
}

TEST_F(ShardWatchTest, HeartbeatsComeToAQuietWatcherAndTellOfDraining) {
  Watcher watcher(*stub_);
  const absl::StatusOr<ShardHeartbeat> beat = watcher.NextHeartbeat();
  ASSERT_TRUE(beat.ok()) << beat.status();
  EXPECT_GE(beat->capacity_bytes, 16u << 20);
  EXPECT_FALSE(beat->draining);
  shard_.server().StartDraining();
  while (!watcher.NextHeartbeat()->draining) {
  }
}

TEST_F(ShardWatchTest, AStoppedShardEndsTheFeed) {
  Watcher watcher(*stub_);
  ASSERT_EQ(watcher.NextEvent()->kind, BlockEvent::Kind::kSnapshotEnd);
  std::thread stop([this] { shard_.server().Stop(absl::ZeroDuration()); });
  const absl::Status end = watcher.NextEvent().status();
  EXPECT_EQ(end.code(), absl::StatusCode::kUnavailable) << end;
  stop.join();
}

TEST_F(ShardWatchTest, WatchersBeyondTheLimitAreRefusedAndThoseThatGoMakeRoom) {
  std::vector<std::unique_ptr<Watcher>> watchers;
  for (size_t i = 0; i < limits::kWatchersMax; ++i) {
    watchers.push_back(std::make_unique<Watcher>(*stub_));
    ASSERT_EQ(watchers.back()->NextEvent()->kind, BlockEvent::Kind::kSnapshotEnd);
  }
  const absl::Status refused = Watcher(*stub_).NextEvent().status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(RefusalReason(refused), "WATCHERS_MAX");
  watchers.clear();
  while (!Watcher(*stub_).NextEvent().ok()) std::this_thread::yield();
}

TEST(ShardOverloadTest, BeyondItsBudgetAShardRefusesAtOnceWithARetryHint) {
  LoopbackShard shard(LoopbackShard::Options{
      .dram_bytes = 16 << 20,
      .admission = {
          .calls_max = 8, .write_calls_max = 8, .streams_max = 1, .write_streams_max = 0}});
  const auto link = shard.Connect();
  const CacheSpec spec = SpecOf(4096);
  const cluster::OpenedSpec opened = *link->OpenSpec(spec, Soon());
  const std::vector<BlockKey> keys = ChainNamed("overload", 2);
  const cluster::ReservedRun reserved =
      *link->Reserve({.spec = opened.handle, .keys = keys}, Soon());
  ContentSource source(keys, opened.block_bytes);
  const absl::Status refused =
      link->lane().Write({reserved.reservation, {0, 1}, opened.block_bytes}, source, Soon());
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted) << refused;
  EXPECT_EQ(RefusalReason(refused), "OVERLOAD");
  EXPECT_EQ(wire::RetryAfter(refused), limits::kRetryAfter);
  EXPECT_EQ(shard.engine().CheckInvariants(), absl::OkStatus());
}

}  // namespace
}  // namespace reprise::testing
