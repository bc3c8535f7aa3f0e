#include "cluster/lanes/view/device_extents.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "cluster/lanes/lane_status.h"
#include "kernels/runtime/device.h"
#include "proto/types/clock.h"
#include "proto/types/limits.h"
#include "proto/types/status_macros.h"

namespace reprise::lanes::view {

absl::StatusOr<std::shared_ptr<const DeviceMapping>> DeviceMapping::Create(int device,
                                                                           const Extent& extent,
                                                                           Descriptor tether) {
  if (!extent.device.has_value() || extent.extent_bytes == 0 || !tether) {
    return LaneDown("view lane: the extent is no device memory that is safe to map");
  }
  if (device == kNearestDevice) {
    const std::optional<int> own = kernels::DeviceWithUuid(extent.device->device_uuid);
    device = own.has_value() ? *own : kernels::CurrentDevice();
  }
  const auto scope = kernels::DeviceScope::Create(device);
  if (!scope.ok()) {
    return LaneDown(
        absl::StrCat("view lane: the blocks are in device memory and this process has "
                     "no such GPU: ",
                     scope.status().message()));
  }
  auto memory =
      kernels::OpenedDeviceMemory::Create(device, extent.device->ipc, extent.extent_bytes);
  if (memory.ok()) {
    return std::shared_ptr<const DeviceMapping>(
        new DeviceMapping(device, std::move(tether), *std::move(memory)));
  }
  const absl::StatusOr<kernels::DeviceInfo> own = kernels::DescribeDevice(device);
  const bool other = own.ok() && own->uuid != extent.device->device_uuid;
  return LaneDown(absl::StrCat(
      "view lane: ", memory.status().message(),
      other ? "; it is on another GPU, which needs peer access" : "; a container may refuse IPC"));
}

DeviceMapping::~DeviceMapping() {
  const auto scope = kernels::DeviceScope::Create(device_);
  memory_.reset();
}

absl::Status DeviceExtents::Possible(int device) {
  absl::MutexLock lock(&mu_);
  const auto it = refused_until_.find(device);
  if (it != refused_until_.end()) {
    if (MonotonicClock().Now() < it->second) {
      return LaneDown("view lane: the shard's device memory could not be mapped lately");
    }
    refused_until_.erase(it);
  }
  if (kernels::DeviceCount() > std::max(device, 0)) return absl::OkStatus();
  refused_until_[device] = MonotonicClock().Now() + limits::kViewDeviceRetryAfter;
  return LaneDown("view lane: the blocks are in device memory and this process has no such GPU");
}

bool DeviceExtents::Refused() const {
  const absl::Time now = MonotonicClock().Now();
  absl::MutexLock lock(&mu_);
  return std::any_of(refused_until_.begin(), refused_until_.end(),
                     [&](const auto& refused) { return now < refused.second; });
}

std::shared_ptr<const DeviceMapping> DeviceExtents::Find(uint64_t extent, int device) const {
  absl::MutexLock lock(&mu_);
  const auto it = mappings_.find(Key(extent, device));
  return it == mappings_.end() ? nullptr : it->second;
}

absl::StatusOr<std::shared_ptr<const DeviceMapping>> DeviceExtents::Map(
    uint64_t id, int device, absl::StatusOr<Extent> answer, Descriptor tether) {
  if (!answer.ok()) return answer.status();
  // The attachment is over, say.
  if (!answer->status.ok() && !IsLaneDown(answer->status)) return answer->status;
  absl::StatusOr<std::shared_ptr<const DeviceMapping>> mapping = LaneDown(answer->status.message());
  if (answer->status.ok()) mapping = DeviceMapping::Create(device, *answer, std::move(tether));
  absl::MutexLock lock(&mu_);
  if (!mapping.ok()) {
    refused_until_[device] = MonotonicClock().Now() + limits::kViewDeviceRetryAfter;
    return mapping;
  }
  const Key key(id, device);
  if (!mappings_.emplace(key, *mapping).second) return mapping;
  oldest_first_.push_back(key);
  if (mappings_.size() <= limits::kViewMappedExtentsMax) return mapping;
  mappings_.erase(oldest_first_.front());
  oldest_first_.pop_front();
  return mapping;
}

absl::StatusOr<kernels::Stream> DeviceExtents::BorrowStream(int device) {
  {
    absl::MutexLock lock(&mu_);
    std::vector<kernels::Stream>& idle = streams_[device];
    if (!idle.empty()) {
      kernels::Stream stream = std::move(idle.back());
      idle.pop_back();
      return stream;
    }
  }
  return kernels::Stream::Create(device);
}

absl::Status DeviceExtents::Copy(int device, void* to, const void* from, uint64_t bytes) {
  REPRISE_ASSIGN_OR_RETURN(const auto scope, kernels::DeviceScope::Create(device));
  absl::StatusOr<kernels::Stream> stream = BorrowStream(device);
  if (!stream.ok()) return LaneDown(stream.status().message());
  absl::Status status = kernels::CopyAsync(to, from, bytes, stream->handle());
  if (status.ok()) status = stream->Synchronize();
  if (!status.ok()) return LaneDown(absl::StrCat("view lane: ", status.message()));
  absl::MutexLock lock(&mu_);
  streams_[device].push_back(*std::move(stream));
  return absl::OkStatus();
}

}  // namespace reprise::lanes::view
