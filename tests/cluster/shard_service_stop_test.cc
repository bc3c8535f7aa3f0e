// What clients hear of a shard that stops, however late they listen.

#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>
#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "tests/support/loopback_shard.h"

namespace reprise::testing {
namespace {

// An attach stream that reads only when it is told to.
class LateReader final : public grpc::ClientBidiReactor<v1::AttachRequest, v1::AttachResponse> {
 public:
  explicit LateReader(v1::ShardService::Stub& stub) {
    hello_.mutable_hello();
    stub.async()->Attach(&context_, this);
    AddHold();  // reads are asked for from outside of gRPC's callbacks
    StartWrite(&hello_);
    StartCall();
  }

  // False at the stream's end.
  bool Read(v1::AttachResponse& response) {
    {
      absl::MutexLock lock(&mu_);
      read_.reset();
    }
    StartRead(&response);
    absl::MutexLock lock(&mu_);
    const auto came = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return read_.has_value(); };
    mu_.Await(absl::Condition(&came));
    return *read_;
  }
  // REQUIRES: Read returned false.
  grpc::Status AwaitEnd() {
    RemoveHold();
    absl::MutexLock lock(&mu_);
    const auto over = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return end_.has_value(); };
    mu_.Await(absl::Condition(&over));
    return *end_;
  }

 private:
  void OnReadDone(bool ok) override {
    absl::MutexLock lock(&mu_);
    read_ = ok;
  }
  void OnDone(const grpc::Status& status) override {
    absl::MutexLock lock(&mu_);
    end_ = status;
  }

  grpc::ClientContext context_;
  v1::AttachRequest hello_;
  absl::Mutex mu_;
  std::optional<bool> read_ ABSL_GUARDED_BY(mu_);
  std::optional<grpc::Status> end_ ABSL_GUARDED_BY(mu_);
};

TEST(ShardStopTest, AClientThatReadsLateStillLearnsThatTheShardStopped) {
  LoopbackShard shard;
  const auto stub = shard.Stub();
  LateReader reader(*stub);
  v1::AttachResponse response;
  ASSERT_TRUE(reader.Read(response));
  ASSERT_TRUE(response.has_welcome());
  shard.server().StartDraining();
  shard.server().Stop(absl::Seconds(30));
  bool told = false;
  while (reader.Read(response)) told = told || response.has_draining();
  EXPECT_TRUE(told);
  const grpc::Status end = reader.AwaitEnd();
  EXPECT_TRUE(end.ok()) << end.error_message();
}

TEST(ShardStopTest, AClientThatWasNotToldSeesAnError) {
  LoopbackShard shard;
  const auto stub = shard.Stub();
  LateReader reader(*stub);
  v1::AttachResponse response;
  ASSERT_TRUE(reader.Read(response));
  shard.server().Stop(absl::Seconds(30));
  EXPECT_FALSE(reader.Read(response));
  EXPECT_EQ(reader.AwaitEnd().error_code(), grpc::StatusCode::UNAVAILABLE);
}

// Who is told that a shard stops asks it again at once, over a connection that is still there.
TEST(ShardStopTest, StreamsThatOpenWhileAShardStopsDoNotHoldItUp) {
  for (int round = 0; round < 20; ++round) {
    LoopbackShard shard;
    std::atomic<bool> stopped{false};
    std::vector<std::thread> callers;
    for (int i = 0; i < 2; ++i) {
      callers.emplace_back([&] {
        while (!stopped) {
          const auto link = cluster::ShardLink::Connect(
              {.address = shard.address(), .client_name = "eager"}, absl::Now() + absl::Seconds(1));
          while (!stopped && link.ok() && (*link)->alive()) std::this_thread::yield();
        }
      });
      callers.emplace_back([&] {
        const auto stub = shard.Stub();
        while (!stopped) {
          grpc::ClientContext context;
          const auto watch = stub->WatchBlocks(&context, {});
          v1::WatchBlocksResponse event;
          while (!stopped && watch->Read(&event)) {
          }
          context.TryCancel();
          watch->Finish().error_code();
        }
      });
    }
    while (shard.engine().Describe(Tenant{"default"}).attachments < 2) std::this_thread::yield();
    shard.server().StartDraining();
    shard.server().Stop(absl::Hours(1));
    stopped = true;
    for (std::thread& caller : callers) caller.join();
  }
}

}  // namespace
}  // namespace reprise::testing
