#include "cluster/lanes/in_process/in_process_lane.h"

#include "tests/conformance/lanes/lane_conformance.h"

namespace reprise::testing {
namespace {

class InProcess final : public LaneUnderTest {
 public:
  LaneHostControl& host() override { return host_; }
  lanes::Lane& lane() override { return lane_; }
  bool leaves_a_stalled_host() const override { return false; }

 private:
  MemoryLaneHost host_{AttachmentId(77)};
  lanes::InProcessLane lane_{&host_, AttachmentId(77)};
};

INSTANTIATE_TEST_SUITE_P(InProcess, LaneConformance,
                         ::testing::Values(LaneCase{"in_process",
                                                    [] { return std::make_unique<InProcess>(); }}),
                         LaneCaseName);

}  // namespace
}  // namespace reprise::testing
