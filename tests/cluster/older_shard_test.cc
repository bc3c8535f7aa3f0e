// A shard of an earlier version, which refuses whoever names a lane that it does not know: clients
// and peers that are updated before it attach to it all the same.

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cluster/link/shard_link.h"
#include "proto/types/refusal.h"
#include "proto/wire/status.h"
#include "reprise/v1/shard.grpc.pb.h"

namespace reprise::testing {
namespace {

class OlderShard final : public v1::ShardService::Service {
 public:
  OlderShard() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~OlderShard() override { server_->Shutdown(absl::ToChronoTime(absl::Now())); }

  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }

  grpc::Status Attach(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<v1::AttachResponse, v1::AttachRequest>* stream) override {
    v1::AttachRequest request;
    if (!stream->Read(&request)) return grpc::Status::OK;
    for (const int lane : request.hello().lanes()) {
      if (lane <= v1::LANE_KIND_NCCL) continue;
      return wire::ToGrpcStatus(Refusal(absl::StatusCode::kInvalidArgument, "ENUM_VALUE",
                                        absl::StrCat("hello.lanes = ", lane, " is not known")));
    }
    v1::AttachResponse response;
    response.mutable_welcome()->set_attachment_id(7);
    response.mutable_welcome()->set_shard_id("older");
    response.mutable_welcome()->set_keep_alive_interval_ms(10'000);
    response.mutable_welcome()->add_lanes(v1::LANE_KIND_STREAM);
    stream->Write(response);
    while (stream->Read(&request)) {
    }
    return grpc::Status::OK;
  }

 private:
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

TEST(OlderShardTest, IsAttachedToWithTheLanesThatItKnows) {
  OlderShard shard;
  const auto link = cluster::ShardLink::Connect(
      {.address = shard.address(), .lanes = {LaneKind::kTcp, LaneKind::kStream}},
      absl::Now() + absl::Seconds(20));
  ASSERT_TRUE(link.ok()) << link.status();
  EXPECT_EQ((*link)->shard_id().name, "older");
  EXPECT_EQ((*link)->lane().kind(), LaneKind::kStream);
}

TEST(OlderShardTest, ALinkThatHasNothingElseIsRefused) {
  OlderShard shard;
  EXPECT_EQ(cluster::ShardLink::Connect(
                {.address = shard.address(), .lanes = {static_cast<LaneKind>(99)}},
                absl::Now() + absl::Seconds(20))
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace reprise::testing
