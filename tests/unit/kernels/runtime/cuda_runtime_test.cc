// What holds on every machine. What needs a GPU is in tests/gpu.
#include <gtest/gtest.h>

#include "kernels/runtime/device.h"
#include "kernels/runtime/gpu_api.h"
#include "kernels/runtime/gpu_status.h"
#include "kernels/runtime/memory.h"
#include "kernels/runtime/stream.h"
#include "proto/types/refusal.h"

namespace reprise::kernels {
namespace {

constexpr int kNoSuchDevice = 4711;

// Without a driver CUDA answers every question, this one too, with the same error.
bool NoErrorLeft() {
  return DeviceCount() == 0 || GpuTakeLastError() == kGpuOk;
}

TEST(GpuStatusTest, EveryCodeHasItsCanonicalStatusAndReason) {
  EXPECT_TRUE(GpuStatus(kGpuOk, "nothing").ok());
  EXPECT_FALSE(IsGpuFailure(absl::OkStatus()));
  EXPECT_FALSE(IsGpuFailure(Refusal(absl::StatusCode::kUnavailable, "LANE_DOWN", "a lane is")));
  const struct {
    GpuCode code;
    absl::StatusCode status;
    const char* reason;
  } kCases[] = {
      {kGpuOutOfMemory, absl::StatusCode::kResourceExhausted, "GPU_OUT_OF_MEMORY"},
      {kGpuNoDevice, absl::StatusCode::kUnavailable, "GPU_ABSENT"},
      {kGpuOldDriver, absl::StatusCode::kUnavailable, "GPU_ABSENT"},
      {kGpuInvalidDevice, absl::StatusCode::kUnavailable, "GPU_ABSENT"},
      {kGpuInvalidValue, absl::StatusCode::kInvalidArgument, "GPU_ARGUMENT"},
      {700, absl::StatusCode::kUnavailable, "GPU_LOST"},
      {719, absl::StatusCode::kUnavailable, "GPU_LOST"},
      {999, absl::StatusCode::kInternal, "GPU_ERROR"},
  };
  for (const auto& test : kCases) {
    const absl::Status status = GpuStatus(test.code, "doing this");
    EXPECT_EQ(status.code(), test.status) << test.code;
    EXPECT_EQ(RefusalReason(status), test.reason) << test.code;
    EXPECT_TRUE(IsGpuFailure(status)) << test.code;
    EXPECT_NE(status.message().find("doing this"), absl::string_view::npos) << status;
  }
}

TEST(GpuStatusTest, ContextIsLostOnlyByErrorsThatCudaCannotClear) {
  EXPECT_FALSE(GpuContextSurvives(700));
  EXPECT_TRUE(GpuContextSurvives(kGpuOutOfMemory));
  EXPECT_TRUE(GpuContextSurvives(kGpuNotReady));
}

TEST(DeviceTest, CountIsZeroExactlyWhenThereIsAReason) {
  EXPECT_GE(DeviceCount(), 0);
  EXPECT_EQ(DeviceCount() == 0, !WhyNoDevice().empty()) << WhyNoDevice();
}

TEST(DeviceTest, AMissingDeviceIsARefusalAndLeavesNoErrorBehind) {
  EXPECT_EQ(DescribeDevice(kNoSuchDevice).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(NoErrorLeft());
  EXPECT_EQ(UseDevice(kNoSuchDevice).code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(NoErrorLeft());
  EXPECT_EQ(DeviceScope::Create(kNoSuchDevice).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(NoErrorLeft());
  EXPECT_EQ(Stream::Create(kNoSuchDevice).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(DeviceBuffer::Create(kNoSuchDevice, 1 << 20).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_TRUE(NoErrorLeft());
}

TEST(DeviceTest, WithoutADeviceEveryCreationSaysSo) {
  if (DeviceCount() > 0) GTEST_SKIP() << "SKIPPED: this machine has a GPU; tests/gpu covers it";
  EXPECT_EQ(RefusalReason(Stream::Create(0).status()), "GPU_ABSENT");
  EXPECT_EQ(RefusalReason(DeviceBuffer::Create(0, 64).status()), "GPU_ABSENT");
  EXPECT_EQ(RefusalReason(PinnedBuffer::Create(64).status()), "GPU_ABSENT");
  EXPECT_EQ(RefusalReason(Event::Create().status()), "GPU_ABSENT");
}

}  // namespace
}  // namespace reprise::kernels
