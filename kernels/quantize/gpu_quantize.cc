#include "absl/strings/str_cat.h"
#include "kernels/quantize/quantize.h"
#include "kernels/quantize/quantize_cuda.h"
#include "kernels/quantize/quantize_launch.h"
#include "kernels/runtime/gpu_status.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::kernels {
namespace {

absl::Status CheckShape(const GpuPlan& plan, const QuantShape& shape) {
  std::string fault = QuantFault(shape);
  const CopyGeometry& geometry = plan.geometry();
  const uint32_t element_bytes = ElementBytes(shape.element);
  const auto compare = [&fault](absl::string_view field, uint64_t of_shape, uint64_t of_plan) {
    if (fault.empty() && of_shape != of_plan) {
      fault = absl::StrCat(field, " is ", of_shape, " in the shape and ", of_plan, " in the plan");
    }
  };
  compare("planes_per_layer", shape.planes_per_layer, plan.planes_per_layer());
  compare("layers", shape.layers, plan.planes() / plan.planes_per_layer());
  compare("heads", shape.heads, geometry.heads);
  compare("tokens", shape.tokens, geometry.block_tokens.divisor());
  compare("bytes of a row", uint64_t{shape.channels} * element_bytes, geometry.row_data_bytes);
  if (fault.empty() && geometry.unit_bytes < element_bytes) {
    fault =
        absl::StrCat("the plan is aligned to ", geometry.unit_bytes, " bytes and an element has ",
                     element_bytes, "; align the engine's tensors to their elements");
  }
  if (fault.empty()) return absl::OkStatus();
  return Refusal(absl::StatusCode::kInvalidArgument, "QUANT_SHAPE", absl::StrCat("shape: ", fault));
}

}  // namespace

absl::Status EncodeRun(const GpuPlan& plan, const QuantShape& shape, const BlockRun& run,
                       GpuStream stream) {
  REPRISE_RETURN_IF_ERROR(CheckShape(plan, shape));
  return GpuStatus(LaunchEncode(MakeQuantLaunch(LaunchOf(plan, run), shape), stream),
                   absl::StrCat("encoding ", run.block_count, " blocks"));
}

absl::Status DecodeRun(const GpuPlan& plan, const QuantShape& shape, const BlockRun& run,
                       GpuStream stream) {
  REPRISE_RETURN_IF_ERROR(CheckShape(plan, shape));
  return GpuStatus(LaunchDecode(MakeQuantLaunch(LaunchOf(plan, run), shape), stream),
                   absl::StrCat("decoding ", run.block_count, " blocks"));
}

}  // namespace reprise::kernels
