// What clients hear of a shard that stops, however late they listen.

#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>
#include <gtest/gtest.h>

#include <optional>

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

}  // namespace
}  // namespace reprise::testing
