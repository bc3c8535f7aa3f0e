#include "cluster/lanes/in_process/in_process_lane.h"

#include "tests/conformance/lanes/lane_conformance.h"
#include "tests/support/device_lane_host.h"

namespace reprise::testing {
namespace {

class InProcess final : public LaneUnderTest {
 public:
  explicit InProcess(bool device)
      : lane_(device ? static_cast<lanes::LaneHost*>(&device_) : &host_, AttachmentId(77)) {}
  LaneHostControl& host() override { return host_; }
  lanes::Lane& lane() override { return lane_; }
  bool leaves_a_stalled_host() const override { return false; }

 private:
  MemoryLaneHost host_{AttachmentId(77)};
  DeviceLaneHost device_{host_};
  lanes::InProcessLane lane_;
};

INSTANTIATE_TEST_SUITE_P(
    InProcess, LaneConformance,
    ::testing::Values(LaneCase{"in_process", [] { return std::make_unique<InProcess>(false); }},
                      LaneCase{"in_process_over_device_memory",
                               [] { return std::make_unique<InProcess>(true); }}),
    LaneCaseName);

}  // namespace
}  // namespace reprise::testing
