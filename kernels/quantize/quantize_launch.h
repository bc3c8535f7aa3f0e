// The kernels' side of quantize_cuda.h. C++17, no CUDA header.
#pragma once

#include "kernels/quantize/quantize_items.h"
#include "kernels/runtime/gpu_types.h"

namespace reprise::kernels {

GpuCode LaunchEncode(const QuantLaunch& launch, GpuStream stream);
GpuCode LaunchDecode(const QuantLaunch& launch, GpuStream stream);

}  // namespace reprise::kernels
