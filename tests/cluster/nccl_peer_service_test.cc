// What a shard's PeerService owes its callers when there are many of them, and when they go.
#include "cluster/peer/nccl_peer_service.h"

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "cluster/link/nccl_rpc_control.h"
#include "proto/types/clock.h"
#include "proto/types/refusal.h"
#include "proto/wire/channel.h"
#include "proto/wire/status.h"
#include "tests/support/fake_nccl/fake_device.h"
#include "tests/support/memory_lane_host.h"

namespace reprise::testing {
namespace {

constexpr AttachmentId kOwn(1);
constexpr AttachmentId kSlow(2);  // whose calls wait to be authorized
constexpr lanes::NcclLinkId kLink(7);

class NcclPeerServiceTest : public ::testing::Test {
 protected:
  NcclPeerServiceTest() { SetNcclFaults(""); }

  cluster::NcclPeerService::Authorize AuthorizeSlowly() {
    return [this](const grpc::ServerContext&, AttachmentId attachment) {
      if (attachment == kSlow) {
        ++waiting_;
        go_on_.WaitForNotification();
      }
      return absl::OkStatus();
    };
  }
  static v1::NcclConnectRequest ConnectRequest() {
    v1::NcclConnectRequest request;
    request.set_attachment_id(kOwn.value);
    request.set_link_id(kLink.value);
    request.set_unique_id(std::string(sizeof(ncclUniqueId), 'u'));
    return request;
  }
  bool AwaitLinks(size_t links) const {
    const auto deadline = lanes::MonotonicDeadline::After(absl::Seconds(10));
    while (host_.links() != links && !deadline.over()) std::this_thread::yield();
    return host_.links() == links;
  }

  MemoryLaneHost memory_{kOwn};
  lanes::NcclHost host_{
      {.host = &memory_, .nccl = FakeNccl(), .device = std::make_shared<FakeDevice>()}};
  absl::Notification go_on_;
  std::atomic<size_t> waiting_{0};
  grpc::ServerContext context_;
};

TEST_F(NcclPeerServiceTest, AHangupIsHeardWhenOtherCallsAreRefused) {
  cluster::NcclPeerService service(&host_, AuthorizeSlowly());
  v1::NcclConnectResponse connected;
  const v1::NcclConnectRequest connect = ConnectRequest();
  ASSERT_TRUE(service.NcclConnect(&context_, &connect, &connected).ok());
  std::vector<std::thread> callers;
  for (size_t i = 0; i < limits::kNcclPeerCallsMax; ++i) {
    callers.emplace_back([&] {
      grpc::ServerContext context;
      v1::NcclFinishRequest request;
      request.set_attachment_id(kSlow.value);
      v1::NcclFinishResponse response;
      EXPECT_FALSE(service.NcclFinish(&context, &request, &response).ok());
    });
  }
  while (waiting_ < limits::kNcclPeerCallsMax) std::this_thread::yield();
  v1::NcclFinishRequest finish;
  finish.set_attachment_id(kOwn.value);
  v1::NcclFinishResponse finished;
  EXPECT_EQ(RefusalReason(wire::FromGrpcStatus(service.NcclFinish(&context_, &finish, &finished))),
            lanes::kNcclCallsRefusal);
  v1::NcclHangupRequest hangup;
  hangup.set_attachment_id(kOwn.value);
  hangup.set_link_id(kLink.value);
  v1::NcclHangupResponse hung_up;
  EXPECT_TRUE(service.NcclHangup(&context_, &hangup, &hung_up).ok());
  EXPECT_TRUE(AwaitLinks(0));
  go_on_.Notify();
  for (std::thread& caller : callers) caller.join();
}

TEST_F(NcclPeerServiceTest, AnAttachmentThatEndsWhileItConnectsLeavesNoLink) {
  bool over = false;
  cluster::NcclPeerService service(&host_, [&](const grpc::ServerContext&, AttachmentId) {
    // Ends right after it was let in.
    if (std::exchange(over, true)) return absl::NotFoundError("no such attachment");
    host_.EndAttachment(kOwn);
    return absl::OkStatus();
  });
  v1::NcclConnectResponse connected;
  const v1::NcclConnectRequest connect = ConnectRequest();
  const grpc::Status refused = service.NcclConnect(&context_, &connect, &connected);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_TRUE(AwaitLinks(0));
}

TEST_F(NcclPeerServiceTest, AnInterruptedCallerWaitsForNoAnswer) {
  cluster::NcclPeerService service(&host_, AuthorizeSlowly());
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  cluster::NcclRpcControl control(wire::MakeChannel("127.0.0.1:" + std::to_string(port)), kSlow);
  const auto patience = lanes::MonotonicDeadline::After(absl::Seconds(60));
  absl::Status connected, finished;
  std::thread connecting([&] { connected = control.Connect({kLink, {}}, patience); });
  std::thread finishing([&] { finished = control.Finish(kLink, 1, patience); });
  while (waiting_ < 2) std::this_thread::yield();
  const absl::Time started = MonotonicClock().Now();
  control.Interrupt();
  connecting.join();
  finishing.join();
  EXPECT_TRUE(absl::IsCancelled(connected)) << connected;
  EXPECT_TRUE(absl::IsCancelled(finished)) << finished;
  EXPECT_TRUE(absl::IsCancelled(control.Connect({kLink, {}}, patience)));
  EXPECT_LT(MonotonicClock().Now() - started, absl::Seconds(10));
  go_on_.Notify();
  server->Shutdown();
  server->Wait();
}

}  // namespace
}  // namespace reprise::testing
