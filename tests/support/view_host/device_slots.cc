#include "tests/support/view_host/device_slots.h"

#include <algorithm>

#include "kernels/runtime/device.h"
#include "kernels/runtime/stream.h"
#include "proto/types/status_macros.h"

namespace reprise::testing {
namespace {
constexpr uint64_t kExtentBytes = 8 << 20;
constexpr uint64_t kAlignBytes = 256;
constexpr uint64_t kDeviceIds = 1000;  // those of host memory are below
}  // namespace

void CopyByGpu(uint8_t* to, const uint8_t* from, uint64_t bytes) {
  auto stream = kernels::Stream::Create(0);
  REPRISE_CHECK(stream.ok());
  REPRISE_CHECK(kernels::CopyAsync(to, from, bytes, stream->handle()).ok());
  REPRISE_CHECK(stream->Synchronize().ok());
}

HostSlot DeviceSlots::Allocate(uint64_t bytes) {
  absl::MutexLock lock(&mu_);
  if (host_every_ != 0 && ++slots_ % host_every_ == 0) return host_.Allocate(bytes);
  const uint64_t slot_bytes = (bytes + kAlignBytes - 1) / kAlignBytes * kAlignBytes;
  if (extents_.empty() || extents_.back().size_bytes() - used_ < slot_bytes) {
    auto extent = kernels::DeviceBuffer::Create(0, std::max(kExtentBytes, slot_bytes));
    REPRISE_CHECK(extent.ok());
    extents_.push_back(*std::move(extent));
    used_ = 0;
  }
  uint8_t* const slot = extents_.back().data() + used_;
  used_ += slot_bytes;
  return HostSlot({slot, bytes}, lanes::MemoryKind::kDevice);
}

std::optional<lanes::ExtentView> DeviceSlots::Export(const uint8_t* address) {
  absl::MutexLock lock(&mu_);
  for (uint32_t i = 0; i < extents_.size(); ++i) {
    const kernels::DeviceBuffer& extent = extents_[i];
    if (address < extent.data() || address >= extent.data() + extent.size_bytes()) continue;
    return lanes::ExtentView{.id = kDeviceIds + i,
                             .offset_bytes = static_cast<uint64_t>(address - extent.data()),
                             .extent_bytes = extent.size_bytes(),
                             .memory = lanes::MemoryKind::kDevice,
                             .number = i};
  }
  return host_.Export(address);
}

absl::StatusOr<lanes::DeviceHandle> DeviceSlots::Share(const lanes::ExtentView& extent,
                                                       AttachmentId) {
  absl::MutexLock lock(&mu_);
  ++shares_;
  REPRISE_ASSIGN_OR_RETURN(const kernels::IpcHandle ipc, extents_.at(extent.number).Export());
  REPRISE_ASSIGN_OR_RETURN(const kernels::DeviceInfo info, kernels::DescribeDevice(0));
  return lanes::DeviceHandle{.ipc = ipc, .device_uuid = info.uuid};
}

void DeviceSlots::Unshared(AttachmentId) {
  absl::MutexLock lock(&mu_);
  ++unshared_;
}

uint64_t DeviceSlots::shares() const {
  absl::MutexLock lock(&mu_);
  return shares_;
}

uint64_t DeviceSlots::unshared() const {
  absl::MutexLock lock(&mu_);
  return unshared_;
}

}  // namespace reprise::testing
