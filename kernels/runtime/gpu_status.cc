#include "kernels/runtime/gpu_status.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/runtime/gpu_api.h"
#include "proto/types/refusal.h"

namespace reprise::kernels {

bool GpuContextSurvives(GpuCode code) {
  switch (code) {
    case 214:  // cudaErrorECCUncorrectable
    case 220:  // cudaErrorNvlinkUncorrectable
    case 700:  // cudaErrorIllegalAddress
    case 702:  // cudaErrorLaunchTimeout
    case 709:  // cudaErrorContextIsDestroyed
    case 710:  // cudaErrorAssert
    case 714:  // cudaErrorHardwareStackError
    case 715:  // cudaErrorIllegalInstruction
    case 716:  // cudaErrorMisalignedAddress
    case 717:  // cudaErrorInvalidAddressSpace
    case 718:  // cudaErrorInvalidPc
    case 719:  // cudaErrorLaunchFailure
      return false;
    default:
      return true;
  }
}

bool IsGpuFailure(const absl::Status& status) {
  return !status.ok() && absl::StartsWith(RefusalReason(status), "GPU_");
}

absl::Status GpuStatus(GpuCode code, absl::string_view doing) {
  if (code == kGpuOk) return absl::OkStatus();
  GpuTakeLastError();
  const std::string what =
      absl::StrCat(doing, ": ", GpuCodeName(code), " (", code, "), ", GpuCodeText(code));
  if (!GpuContextSurvives(code)) {
    return Refusal(absl::StatusCode::kUnavailable, "GPU_LOST",
                   absl::StrCat(what, "; this process cannot use the GPU any more, restart it"));
  }
  switch (code) {
    case kGpuOutOfMemory:
      return Refusal(absl::StatusCode::kResourceExhausted, "GPU_OUT_OF_MEMORY",
                     absl::StrCat(what, "; ask for less or free memory on the device"));
    case kGpuOldDriver:
    case kGpuNoDevice:
    case kGpuInvalidDevice:
      return Refusal(absl::StatusCode::kUnavailable, "GPU_ABSENT",
                     absl::StrCat(what, "; check that the device exists and its driver is loaded"));
    case kGpuInvalidValue:
      return Refusal(absl::StatusCode::kInvalidArgument, "GPU_ARGUMENT", what);
    default:
      return Refusal(absl::StatusCode::kInternal, "GPU_ERROR", what);
  }
}

}  // namespace reprise::kernels
