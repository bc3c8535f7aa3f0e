#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/block_copy/block_copy_cuda.h"
#include "kernels/runtime/gpu_status.h"
#include "kernels/runtime/stream.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::kernels {
namespace {

constexpr uint64_t kPlaneBytesMax = uint64_t{1} << 31;  // FastDivide's reach

}  // namespace

GpuPlan::GpuPlan(const PagedPlan& plan, DeviceBuffer uploaded)
    : geometry_(MakeCopyGeometry(plan)),
      planes_(static_cast<uint32_t>(plan.planes.size())),
      planes_per_layer_(plan.planes_per_layer),
      block_bytes_(plan.block_bytes),
      uploaded_(std::move(uploaded)) {}

absl::StatusOr<GpuPlan> GpuPlan::Create(int device, const PagedPlan& plan) {
  absl::string_view fault = PlanFault(plan);
  if (fault.empty() &&
      uint64_t{plan.heads} * plan.block_tokens * plan.row_bytes >= kPlaneBytesMax) {
    fault = "one plane of a block has 2 GiB or more; use fewer block_tokens";
  }
  if (!fault.empty()) {
    return Refusal(absl::StatusCode::kInvalidArgument, "PLAN_INVALID",
                   absl::StrCat("plan: ", fault));
  }
  const uint64_t bytes = plan.planes.size() * sizeof(PagedPlane);
  REPRISE_ASSIGN_OR_RETURN(DeviceBuffer uploaded, DeviceBuffer::Create(device, bytes));
  REPRISE_ASSIGN_OR_RETURN(Stream stream, Stream::Create(device));
  REPRISE_RETURN_IF_ERROR(CopyAsync(uploaded.data(), plan.planes.data(), bytes, stream.handle()));
  REPRISE_RETURN_IF_ERROR(stream.Synchronize());
  return GpuPlan(plan, std::move(uploaded));
}

RunLaunch LaunchOf(const GpuPlan& plan, const BlockRun& run) {
  const uint32_t layers = plan.planes() / plan.planes_per_layer();
  const uint32_t first = std::min(run.part.first_layer, layers);
  RunLaunch launch;
  launch.geometry = plan.geometry();
  launch.planes = plan.device_planes();
  launch.first_plane = first * plan.planes_per_layer();
  launch.plane_count = std::min(run.part.layers, layers - first) * plan.planes_per_layer();
  launch.page_table = run.page_table;
  launch.block_table = run.block_table;
  launch.block_count = run.block_count;
  launch.last_block_tokens = std::min(run.part.tokens, plan.geometry().block_tokens.divisor());
  return launch;
}

absl::Status GatherRun(const GpuPlan& plan, const BlockRun& run, GpuStream stream) {
  return GpuStatus(LaunchGather(LaunchOf(plan, run), stream),
                   absl::StrCat("gathering ", run.block_count, " blocks"));
}

absl::Status ScatterRun(const GpuPlan& plan, const BlockRun& run, GpuStream stream) {
  return GpuStatus(LaunchScatter(LaunchOf(plan, run), stream),
                   absl::StrCat("scattering ", run.block_count, " blocks"));
}

}  // namespace reprise::kernels
