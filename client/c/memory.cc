// The C ABI's caller memory: plans, buffers, and which GPU they are on.
#include "client/c/handles.h"
#include "client/c/reprise.h"
#include "client/cpp/device_memory.h"
#include "kernels/runtime/device.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace rc = reprise::client;

namespace reprise::abi {

absl::StatusOr<rc::CallerMemory> Memory(const reprise_device_memory& memory, uint32_t blocks) {
  rc::CallerMemory out;
  if (blocks == 0) return out;
  out.device = memory.device;
  if (memory.buffers != nullptr) {
    for (uint32_t i = 0; i < blocks; ++i)
      out.buffers.push_back(static_cast<uint8_t*>(memory.buffers[i]));
  }
  if (memory.plan != nullptr) {
    if (memory.pages == nullptr) return Unset("memory.pages");
    const rc::DevicePlan& plan = memory.plan->plan;
    if (plan.device != memory.device) {
      return Refusal(
          absl::StatusCode::kInvalidArgument, "MEMORY_DEVICE",
          absl::StrCat("memory.plan is of device ", plan.device, " and memory.device is ",
                       memory.device, " (-1 is host memory): name the plan's"));
    }
    out.plan = plan.plan;
    out.gpu_plan = plan.uploaded;
    out.pages.assign(memory.pages, memory.pages + size_t{blocks} * out.plan->PagesPerBlock());
  }
  if (memory.device != reprise::kernels::kHostMemory && memory.stream != REPRISE_STREAM_NONE) {
    REPRISE_ASSIGN_OR_RETURN(
        out.after, rc::MarkStream(memory.device,
                                  reinterpret_cast<reprise::kernels::GpuStream>(memory.stream)));
  }
  return out;
}

reprise_device_memory OnHost(const reprise_memory& memory) {
  return {.buffers = memory.buffers,
          .plan = memory.plan,
          .pages = memory.pages,
          .stream = REPRISE_STREAM_NONE,
          .device = reprise::kernels::kHostMemory};
}

}  // namespace reprise::abi

namespace {

using reprise::abi::Fail;
using reprise::abi::Guard;
using reprise::abi::Unset;

absl::StatusOr<std::vector<reprise::kernels::PagedPlane>> Planes(const reprise_plane* planes,
                                                                 size_t count) {
  if (planes == nullptr) return Unset("planes");
  std::vector<reprise::kernels::PagedPlane> copied;
  for (size_t i = 0; i < count; ++i) {
    copied.push_back({.base = static_cast<uint8_t*>(planes[i].base),
                      .page_stride_bytes = planes[i].page_stride,
                      .head_stride_bytes = planes[i].head_stride,
                      .token_stride_bytes = planes[i].token_stride});
  }
  return copied;
}

}  // namespace

extern "C" {

reprise_code reprise_plan_create(const reprise_spec* spec, const reprise_plane* planes,
                                 size_t plane_count, uint32_t page_tokens, reprise_plan** plan,
                                 reprise_error* error) {
  return reprise_plan_create_on(spec, planes, plane_count, page_tokens,
                                reprise::kernels::kHostMemory, plan, error);
}

void reprise_plan_free(reprise_plan* plan) {
  delete plan;
}

int32_t reprise_gpu_count(reprise_error* error) {
  const int devices = reprise::kernels::DeviceCount();
  (void)Fail(devices > 0 ? absl::OkStatus()
                         : reprise::Refusal(absl::StatusCode::kUnavailable, "GPU_ABSENT",
                                            absl::StrCat("there is no GPU to use: ",
                                                         reprise::kernels::WhyNoDevice())),
             error);
  return devices;
}

reprise_code reprise_device_of(const void* address, int32_t* device, reprise_error* error) {
  return Guard(error, [&]() -> absl::Status {
    if (device == nullptr) return Unset("device");
    REPRISE_ASSIGN_OR_RETURN(*device, reprise::kernels::DeviceOf(address));
    return absl::OkStatus();
  });
}

reprise_code reprise_plan_create_on(const reprise_spec* spec, const reprise_plane* planes,
                                    size_t plane_count, uint32_t page_tokens, int32_t device,
                                    reprise_plan** plan, reprise_error* error) {
  return Guard(error, [&]() -> absl::Status {
    if (spec == nullptr) return Unset("spec");
    if (plan == nullptr) return Unset("plan");
    REPRISE_ASSIGN_OR_RETURN(auto copied, Planes(planes, plane_count));
    const reprise::BlockLayout& layout = spec->spec->layout;
    rc::DevicePlan made;
    if (device == reprise::kernels::kHostMemory) {
      REPRISE_ASSIGN_OR_RETURN(made.plan,
                               rc::MakePagedPlan(layout, std::move(copied), page_tokens));
    } else {
      REPRISE_ASSIGN_OR_RETURN(made,
                               rc::MakeDevicePlan(layout, std::move(copied), page_tokens, device));
    }
    *plan = new reprise_plan{std::move(made)};
    return absl::OkStatus();
  });
}

}  // extern "C"
