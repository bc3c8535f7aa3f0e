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

INSTANTIATE_TEST_SUITE_P(Nccl, LaneConformance,
                         ::testing::Values(LaneCase{
                             "fake", [] { return std::make_unique<OverFakeNccl>(); }}),
                         LaneCaseName);

}  // namespace
}  // namespace reprise::testing
