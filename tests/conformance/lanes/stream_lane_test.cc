#include "cluster/lanes/stream/stream_lane.h"

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include "cluster/lanes/stream/message_pieces.h"
#include "cluster/lanes/stream/stream_host.h"
#include "proto/wire/channel.h"
#include "reprise/v1/shard.grpc.pb.h"
#include "tests/conformance/lanes/lane_conformance.h"
#include "tests/support/device_lane_host.h"

namespace reprise::testing {
namespace {

using RawService = v1::ShardService::WithRawCallbackMethod_Read<
    v1::ShardService::WithRawCallbackMethod_Write<v1::ShardService::Service>>;

// Read and Write of ShardService over a host, and nothing else.
class LaneService final : public RawService {
 public:
  explicit LaneService(lanes::LaneHost* host) : host_(host) {}

  grpc::ServerWriteReactor<grpc::ByteBuffer>* Read(grpc::CallbackServerContext*,
                                                   const grpc::ByteBuffer* message) override {
    std::vector<grpc::Slice> slices;
    EXPECT_TRUE(message->Dump(&slices).ok());
    std::string bytes;
    for (const grpc::Slice& slice : slices) bytes.append(slice.begin(), slice.end());
    v1::ReadRequest request;
    EXPECT_TRUE(request.ParseFromString(bytes));
    return lanes::ServeRead(*host_, request, nullptr);
  }
  grpc::ServerReadReactor<grpc::ByteBuffer>* Write(grpc::CallbackServerContext*,
                                                   grpc::ByteBuffer* response) override {
    return lanes::ServeWrite(*host_, response,
                             {.admit = [](AttachmentId) { return absl::OkStatus(); }});
  }

 private:
  lanes::LaneHost* const host_;
};

class Stream final : public LaneUnderTest {
 public:
  explicit Stream(bool device)
      : service_(device ? static_cast<lanes::LaneHost*>(&device_) : &host_) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    lane_ = std::make_unique<lanes::StreamLane>(
        wire::MakeChannel("127.0.0.1:" + std::to_string(port)), AttachmentId(77));
  }
  ~Stream() override {
    lane_.reset();
    server_->Shutdown();
    server_->Wait();
  }
  LaneHostControl& host() override { return host_; }
  lanes::Lane& lane() override { return *lane_; }

 private:
  MemoryLaneHost host_{AttachmentId(77)};
  DeviceLaneHost device_{host_};
  LaneService service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<lanes::StreamLane> lane_;
};

INSTANTIATE_TEST_SUITE_P(Stream, LaneConformance,
                         ::testing::Values(LaneCase{"stream",
                                                    [] { return std::make_unique<Stream>(false); }},
                                           LaneCase{"stream_over_device_memory",
                                                    [] { return std::make_unique<Stream>(true); }}),
                         LaneCaseName);

}  // namespace
}  // namespace reprise::testing
