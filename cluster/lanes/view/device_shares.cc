#include "cluster/lanes/view/device_shares.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "cluster/lanes/lane_status.h"

namespace reprise::lanes::view {
namespace {

bool HungUp(const Descriptor& watched) {
  pollfd state{watched.get(), POLLIN, 0};
  return ::poll(&state, 1, 0) > 0 && (state.revents & (POLLHUP | POLLERR)) != 0;
}

}  // namespace

absl::StatusOr<DeviceShares::Grant> DeviceShares::Share(const ExtentView& extent,
                                                        AttachmentId attachment) {
  absl::MutexLock lock(&mu_);
  if (ended_.contains(attachment)) return absl::NotFoundError("the attachment is over");
  Shared& shared = shared_[attachment];
  if (!shared.watched) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) {
      shared_.erase(attachment);
      return LaneDown("view lane: no descriptor is left");
    }
    shared.watched = Descriptor(ends[0]);
    shared.tether = Descriptor(ends[1]);
  }
  Grant grant{.tether = Descriptor(::fcntl(shared.tether.get(), F_DUPFD_CLOEXEC, 0))};
  if (!grant.tether) return LaneDown("view lane: no descriptor is left");
  auto known = shared.extents.find(extent.id);
  if (known == shared.extents.end()) {
    absl::StatusOr<DeviceHandle> handle = exporter_.Share(extent, attachment);
    if (!handle.ok()) {
      return LaneDown(
          absl::StrCat("view lane: the extent cannot be shared: ", handle.status().message()));
    }
    known = shared.extents.emplace(extent.id, *handle).first;
  }
  grant.handle = known->second;
  return grant;
}

void DeviceShares::End(AttachmentId attachment) {
  absl::MutexLock lock(&mu_);
  ended_.insert(attachment);
}

void DeviceShares::Sweep(absl::FunctionRef<bool(AttachmentId)> connected) {
  absl::MutexLock lock(&mu_);
  for (auto it = ended_.begin(); it != ended_.end();) {
    const AttachmentId attachment = *it;
    const auto shared = shared_.find(attachment);
    bool over = !connected(attachment);
    if (over && shared != shared_.end()) {
      shared->second.tether.Close();
      over = HungUp(shared->second.watched);
      if (over) {
        exporter_.Unshared(attachment);
        shared_.erase(shared);
      }
    }
    if (over) {
      ended_.erase(it++);
    } else {
      ++it;
    }
  }
}

std::vector<int> DeviceShares::Awaited() const {
  absl::MutexLock lock(&mu_);
  std::vector<int> awaited;
  for (const auto& [attachment, shared] : shared_) {
    if (ended_.contains(attachment) && !shared.tether) awaited.push_back(shared.watched.get());
  }
  return awaited;
}

}  // namespace reprise::lanes::view
