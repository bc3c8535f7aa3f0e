// The view lane over device memory: a shard's process and ours on one (fake) GPU, every mix of
// memories at both ends.
#include <memory>
#include <string>

#include "cluster/lanes/view/view_lane.h"
#include "tests/conformance/lanes/lane_conformance.h"
#include "tests/support/fake_gpu/fake_gpu.h"
#include "tests/support/view_host/device_slots.h"
#include "tests/support/view_host/view_host_process.h"

namespace reprise::testing {
namespace {

constexpr AttachmentId kAttachment(4243);

struct Mix {
  std::string slots;  // "host", "device" or "mixed"
  bool device_ends = false;
  bool deferred = false;
};

class OverGpu final : public LaneUnderTest {
 public:
  explicit OverGpu(const Mix& mix)
      : mix_(mix),
        host_(kAttachment,
              {.program = mix.slots == "host" ? REPRISE_VIEW_HOST : REPRISE_VIEW_HOST_FAKE_GPU,
               .memory = mix.slots,
               .fake_gpu = "memory=1GiB"}) {
    ConfigureFakeGpu({.deferred = mix.deferred});
    auto lane = lanes::ViewLane::Connect({.socket = host_.address(), .attachment = kAttachment},
                                         absl::Now() + absl::Seconds(30));
    EXPECT_TRUE(lane.ok()) << lane.status();
    if (lane.ok()) lane_ = *std::move(lane);
  }
  ~OverGpu() override {
    lane_.reset();
    EXPECT_EQ(UseOfFakeGpu().alive(), 0u) << "the lane kept something";
  }
  LaneHostControl& host() override { return host_; }
  lanes::Lane& lane() override { return *lane_; }
  CopyBytes device_copy() const override {
    return mix_.device_ends ? CopyBytes(CopyByGpu) : CopyBytes();
  }

 private:
  const Mix mix_;
  ViewHostProcess host_;
  std::unique_ptr<lanes::ViewLane> lane_;
};

LaneCase CaseOf(std::string name, Mix mix) {
  return {std::move(name), [mix] { return std::make_unique<OverGpu>(mix); }};
}

INSTANTIATE_TEST_SUITE_P(
    ViewOverGpu, LaneConformance,
    ::testing::Values(CaseOf("device_to_device", {.slots = "device", .device_ends = true}),
                      CaseOf("device_to_host", {.slots = "device"}),
                      CaseOf("device_to_host_deferred", {.slots = "device", .deferred = true}),
                      CaseOf("host_to_device", {.slots = "host", .device_ends = true}),
                      CaseOf("mixed_to_device", {.slots = "mixed", .device_ends = true}),
                      CaseOf("mixed_to_host", {.slots = "mixed"})),
    LaneCaseName);

}  // namespace
}  // namespace reprise::testing
