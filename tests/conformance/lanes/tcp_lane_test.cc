#include <memory>
#include <optional>

#include "tests/conformance/lanes/lane_conformance.h"
#include "tests/support/device_lane_host.h"
#include "tests/support/tcp_lane_ends.h"

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
    lanes::LaneHost* const host =
        device_.has_value() ? static_cast<lanes::LaneHost*>(&*device_) : &host_;
    ends_ = std::make_unique<TcpLaneEnds>(
        lanes::TcpServer::Options{.host = host, .encrypted = shape.encrypted}, kAttachment);
  }
  LaneHostControl& host() override { return host_; }
  lanes::Lane& lane() override { return ends_->lane(); }

 private:
  MemoryLaneHost host_{kAttachment};
  std::optional<DeviceLaneHost> device_;
  std::unique_ptr<TcpLaneEnds> ends_;
};

LaneCase Case(const char* name, const Shape& shape) {
  return {name, [shape] { return std::make_unique<Tcp>(shape); }};
}

INSTANTIATE_TEST_SUITE_P(
    Tcp, LaneConformance,
    ::testing::Values(
        Case("plaintext", {}), Case("encrypted", {.encrypted = true}),
        Case("plaintext_over_device_memory", {.elsewhere = lanes::MemoryKind::kDevice}),
        Case("encrypted_over_a_file", {.encrypted = true, .elsewhere = lanes::MemoryKind::kFile})),
    LaneCaseName);

}  // namespace
}  // namespace reprise::testing
