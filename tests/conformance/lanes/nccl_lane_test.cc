#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <memory>
#include <string>

#include "cluster/link/nccl_rpc_control.h"
#include "cluster/peer/nccl_peer_service.h"
#include "proto/wire/channel.h"
#include "tests/conformance/lanes/lane_conformance.h"
#include "tests/support/fake_nccl/nccl_rig.h"

namespace reprise::testing {
namespace {

// As links have it: the NCCL lane first, another one behind it.
class OverFakeNccl final : public LaneUnderTest {
 public:
  OverFakeNccl() {
    SetNcclFaults("");
    EXPECT_TRUE(rig_.AwaitUp());
  }
  LaneHostControl& host() override { return rig_.host(); }
  lanes::Lane& lane() override { return rig_.lane(); }

 private:
  NcclRig rig_;
};

// The same with the calls beside the link over gRPC, as processes have them.
class OverGrpc final : public LaneUnderTest {
 public:
  OverGrpc() {
    SetNcclFaults("");
    rig_ = std::make_unique<NcclRig>(NcclRig::Options{
        .control = [this](lanes::NcclHost* host) -> std::shared_ptr<lanes::NcclControl> {
          service_ = std::make_unique<cluster::NcclPeerService>(host, [](const grpc::ServerContext&,
                                                                         AttachmentId attachment) {
            return attachment == NcclRig::kAttachment ? absl::OkStatus()
                                                      : absl::NotFoundError("no such attachment");
          });
          grpc::ServerBuilder builder;
          int port = 0;
          builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
          builder.RegisterService(service_.get());
          server_ = builder.BuildAndStart();
          return std::make_shared<cluster::NcclRpcControl>(
              wire::MakeChannel("127.0.0.1:" + std::to_string(port)), NcclRig::kAttachment);
        }});
    EXPECT_TRUE(rig_->AwaitUp());
  }
  ~OverGrpc() override {
    rig_->host().Unstall();
    server_->Shutdown();
    server_->Wait();
    rig_.reset();
  }
  LaneHostControl& host() override { return rig_->host(); }
  lanes::Lane& lane() override { return rig_->lane(); }

 private:
  std::unique_ptr<cluster::NcclPeerService> service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<NcclRig> rig_;
};

INSTANTIATE_TEST_SUITE_P(
    Nccl, LaneConformance,
    ::testing::Values(LaneCase{"fake", [] { return std::make_unique<OverFakeNccl>(); }},
                      LaneCase{"fake_over_grpc", [] { return std::make_unique<OverGrpc>(); }}),
    LaneCaseName);

}  // namespace
}  // namespace reprise::testing
