#include "cluster/lanes/tcp/tcp_lane.h"

#include <memory>
#include <optional>

#include "cluster/lanes/tcp/tcp_server.h"
#include "tests/conformance/lanes/lane_conformance.h"
#include "tests/support/device_lane_host.h"

namespace reprise::testing {
namespace {

constexpr AttachmentId kAttachment(77);

struct Shape {
  bool encrypted = false;
  std::optional<lanes::MemoryKind> elsewhere;  // nullopt: slots are in host memory
};

class Tcp final : public LaneUnderTest {
 public:
  explicit Tcp(const Shape& shape) {
    if (shape.elsewhere.has_value()) device_.emplace(host_, *shape.elsewhere);
    auto server = lanes::TcpServer::Create(
        {.host = shape.elsewhere.has_value() ? static_cast<lanes::LaneHost*>(&*device_) : &host_,
         .encrypted = shape.encrypted});
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    const auto key = server_->Welcome(kAttachment);
    EXPECT_TRUE(key.ok() && key->has_value() == shape.encrypted);
    auto lane = lanes::TcpLane::Connect({.host = "127.0.0.1",
                                         .port = server_->port(),
                                         .attachment = kAttachment,
                                         .key = *key},
                                        absl::Now() + absl::Seconds(10));
    EXPECT_TRUE(lane.ok()) << lane.status();
    lane_ = *std::move(lane);
  }
  LaneHostControl& host() override { return host_; }
  lanes::Lane& lane() override { return *lane_; }

 private:
  MemoryLaneHost host_{kAttachment};
  std::optional<DeviceLaneHost> device_;
  std::unique_ptr<lanes::TcpServer> server_;
  std::unique_ptr<lanes::TcpLane> lane_;
};

LaneCase Case(const char* name, const Shape& shape) {
  return {name, [shape] { return std::make_unique<Tcp>(shape); }};
}

INSTANTIATE_TEST_SUITE_P(
    Tcp, LaneConformance,
    ::testing::Values(
        Case("plaintext", {}), Case("encrypted", {.encrypted = true}),
        Case("plaintext_over_device_memory", {.elsewhere = lanes::MemoryKind::kDevice}),
        Case("encrypted_over_a_file",
             {.encrypted = true, .elsewhere = lanes::MemoryKind::kFile})),
    LaneCaseName);

}  // namespace
}  // namespace reprise::testing
