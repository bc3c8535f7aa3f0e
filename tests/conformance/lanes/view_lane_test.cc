#include "cluster/lanes/view/view_lane.h"

#include <memory>

#include "cluster/lanes/view/view_server.h"
#include "tests/conformance/lanes/lane_conformance.h"
#include "tests/support/view_host/memfd_extents.h"
#include "tests/support/view_host/view_host_process.h"

namespace reprise::testing {
namespace {

constexpr AttachmentId kAttachment(4242);

std::unique_ptr<lanes::ViewLane> ConnectTo(const std::string& socket) {
  auto lane = lanes::ViewLane::Connect({.socket = socket, .attachment = kAttachment},
                                       absl::Now() + absl::Seconds(10));
  EXPECT_TRUE(lane.ok()) << lane.status();
  return lane.ok() ? *std::move(lane) : nullptr;
}

class SameProcess final : public LaneUnderTest {
 public:
  SameProcess()
      : host_(kAttachment, [this](uint64_t bytes) { return extents_.Allocate(bytes); }),
        server_(*lanes::ViewServer::Create({.host = &host_, .exporter = &extents_})),
        lane_(ConnectTo(server_->address())) {}
  LaneHostControl& host() override { return host_; }
  lanes::Lane& lane() override { return *lane_; }

 private:
  MemfdExtents extents_;
  MemoryLaneHost host_;
  std::unique_ptr<lanes::ViewServer> server_;
  std::unique_ptr<lanes::ViewLane> lane_;
};

class OtherProcess final : public LaneUnderTest {
 public:
  LaneHostControl& host() override { return host_; }
  lanes::Lane& lane() override { return *lane_; }

 private:
  ViewHostProcess host_{kAttachment};
  std::unique_ptr<lanes::ViewLane> lane_ = ConnectTo(host_.address());
};

INSTANTIATE_TEST_SUITE_P(
    View, LaneConformance,
    ::testing::Values(LaneCase{"same_process", [] { return std::make_unique<SameProcess>(); }},
                      LaneCase{"other_process", [] { return std::make_unique<OtherProcess>(); }}),
    LaneCaseName);

}  // namespace
}  // namespace reprise::testing
