#include "cluster/lanes/stream/stream_lane.h"

#include <memory>
#include <optional>

#include "proto/wire/channel.h"
#include "tests/conformance/lanes/lane_conformance.h"
#include "tests/support/device_lane_host.h"
#include "tests/support/stream_lane_server.h"

namespace reprise::testing {
namespace {

class Stream final : public LaneUnderTest {
 public:
  explicit Stream(std::optional<lanes::MemoryKind> elsewhere) {
    if (elsewhere.has_value()) device_.emplace(host_, *elsewhere);
    server_ = std::make_unique<StreamLaneServer>(
        elsewhere.has_value() ? static_cast<lanes::LaneHost&>(*device_) : host_);
    lane_ = std::make_unique<lanes::StreamLane>(wire::MakeChannel(server_->address()),
                                                AttachmentId(77));
  }
  LaneHostControl& host() override { return host_; }
  lanes::Lane& lane() override { return *lane_; }

 private:
  MemoryLaneHost host_{AttachmentId(77)};
  std::optional<DeviceLaneHost> device_;
  std::unique_ptr<StreamLaneServer> server_;
  std::unique_ptr<lanes::StreamLane> lane_;
};

template <typename... Kind>
LaneCase Case(const char* name, Kind... kind) {
  return {name, [kind...] {
            return std::make_unique<Stream>(std::optional<lanes::MemoryKind>(kind...));
          }};
}

INSTANTIATE_TEST_SUITE_P(
    Stream, LaneConformance,
    ::testing::Values(Case("stream"), Case("stream_over_device_memory", lanes::MemoryKind::kDevice),
                      Case("stream_over_a_file", lanes::MemoryKind::kFile)),
    LaneCaseName);

}  // namespace
}  // namespace reprise::testing
