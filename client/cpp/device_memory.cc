#include "client/cpp/device_memory.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/runtime/device.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::client {
namespace {

absl::Status Misuse(absl::string_view reason, absl::string_view sentence) {
  return Refusal(absl::StatusCode::kInvalidArgument, reason, sentence);
}

// `array`[`index`]`member` of the caller's is at `address`.
struct NamedAddress {
  const char* array;
  size_t index;
  const char* member;
  const uint8_t* address;
};

absl::Status CheckAddress(const NamedAddress& named, int device) {
  REPRISE_ASSIGN_OR_RETURN(const int found, kernels::DeviceOf(named.address));
  if (found == device) return absl::OkStatus();
  const std::string where = found == kernels::kHostMemory
                                ? std::string("in host memory")
                                : absl::StrCat("in the memory of GPU ", found);
  return Misuse("MEMORY_DEVICE", absl::StrCat(named.array, "[", named.index, "]", named.member,
                                              " is ", where, " and not in that of GPU ", device,
                                              ": give memory of the device you name"));
}

}  // namespace

absl::Status CheckDevice(int device) {
  const int devices = kernels::DeviceCount();
  if (devices == 0) {
    return Refusal(absl::StatusCode::kUnavailable, "GPU_ABSENT",
                   absl::StrCat("memory on GPU ", device,
                                " was given, and this process has none: ", kernels::WhyNoDevice()));
  }
  if (device >= 0 && device < devices) return absl::OkStatus();
  return Misuse("MEMORY_DEVICE",
                absl::StrCat("device is ", device, ": this process has GPUs 0 to ", devices - 1));
}

absl::StatusOr<DevicePlan> MakeDevicePlan(const BlockLayout& layout,
                                          std::vector<kernels::PagedPlane> planes,
                                          uint32_t page_tokens, int device) {
  DevicePlan made;
  made.device = device;
  REPRISE_ASSIGN_OR_RETURN(made.plan, MakePagedPlan(layout, std::move(planes), page_tokens));
  REPRISE_RETURN_IF_ERROR(CheckDevice(device));
  REPRISE_ASSIGN_OR_RETURN(const auto scope, kernels::DeviceScope::Create(device));
  for (size_t i = 0; i < made.plan->planes.size(); ++i) {
    REPRISE_RETURN_IF_ERROR(
        CheckAddress({"planes", i, ".base", made.plan->planes[i].base}, device));
  }
  REPRISE_ASSIGN_OR_RETURN(auto uploaded, kernels::GpuPlan::Create(device, *made.plan));
  made.uploaded = std::make_shared<const kernels::GpuPlan>(std::move(uploaded));
  return made;
}

absl::Status CheckDeviceMemory(const CallerMemory& memory, uint32_t blocks) {
  REPRISE_RETURN_IF_ERROR(CheckDevice(memory.device));
  if (memory.plan != nullptr) {
    // The plan's addresses were checked when it was made.
    if (memory.gpu_plan != nullptr) return absl::OkStatus();
    return Misuse("MEMORY_PLAN", absl::StrCat("the plan is of host memory and the memory on GPU ",
                                              memory.device, ": make the plan on that device"));
  }
  REPRISE_ASSIGN_OR_RETURN(const auto scope, kernels::DeviceScope::Create(memory.device));
  for (uint32_t i = 0; i < blocks; ++i) {
    const uint8_t* buffer = memory.buffers[i];
    if (reinterpret_cast<uintptr_t>(buffer) % limits::kRowAlignBytes != 0) {
      return Misuse("MEMORY_BUFFERS",
                    absl::StrCat("buffers[", i, "] is at an address that is no multiple of ",
                                 limits::kRowAlignBytes, ": on a GPU it must be one"));
    }
    REPRISE_RETURN_IF_ERROR(CheckAddress({"buffers", i, "", buffer}, memory.device));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const kernels::Event>> MarkStream(int device,
                                                                 kernels::GpuStream stream) {
  REPRISE_RETURN_IF_ERROR(CheckDevice(device));
  REPRISE_ASSIGN_OR_RETURN(const auto scope, kernels::DeviceScope::Create(device));
  REPRISE_ASSIGN_OR_RETURN(auto event, kernels::Event::Create());
  REPRISE_RETURN_IF_ERROR(event.Record(stream));
  return std::make_shared<const kernels::Event>(std::move(event));
}

absl::Status AwaitStream(const CallerMemory& memory, absl::Time deadline) {
  absl::Duration pause = limits::kDevicePollMin;
  while (memory.after != nullptr) {
    REPRISE_ASSIGN_OR_RETURN(const bool done, memory.after->Done());
    if (done) break;
    if (absl::Now() >= deadline) {
      return Refusal(absl::StatusCode::kDeadlineExceeded, "CALLER_STREAM_BUSY",
                     "the caller's stream was not through with the memory by the deadline: nothing "
                     "was moved");
    }
    absl::SleepFor(pause);
    pause = std::min(2 * pause, limits::kDevicePollMax);
  }
  return absl::OkStatus();
}

}  // namespace reprise::client
