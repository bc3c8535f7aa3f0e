#include "cluster/lanes/view/pinned_extents.h"

#include <sys/stat.h>

#include "kernels/runtime/device.h"
#include "proto/types/clock.h"
#include "proto/types/limits.h"
#include "proto/types/status_macros.h"

namespace reprise::lanes::view {
namespace {

// How much of a file in memory is there, in the units of stat.
uint64_t BlocksOf(const Descriptor& file) {
  struct stat info {};
  return ::fstat(file.get(), &info) == 0 ? static_cast<uint64_t>(info.st_blocks) : 0;
}

}  // namespace

// ---- One extent

absl::StatusOr<std::shared_ptr<const PinnedMapping>> PinnedMapping::Create(int device,
                                                                           Descriptor file,
                                                                           uint64_t bytes) {
  // A GPU writes to what it has pinned, unless it can be told not to, which not all can.
  REPRISE_ASSIGN_OR_RETURN(auto mapping, Mapping::Create(file, bytes, /*writable=*/true));
  REPRISE_ASSIGN_OR_RETURN(const auto scope, kernels::DeviceScope::Create(device));
  REPRISE_ASSIGN_OR_RETURN(auto pinned,
                           kernels::PinnedRange::Create(mapping->writable_data(), bytes));
  const uint64_t file_blocks = BlocksOf(file);
  return std::shared_ptr<const PinnedMapping>(new PinnedMapping(
      device, std::move(file), file_blocks, std::move(mapping), std::move(pinned)));
}

PinnedMapping::~PinnedMapping() {
  const auto scope = kernels::DeviceScope::Create(device_);
  pinned_.reset();
}

bool PinnedMapping::Current() const {
  return BlocksOf(file_) >= file_blocks_;
}

// ---- All of them

PinnedExtents::~PinnedExtents() {
  std::thread thread;
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
    thread = std::move(thread_);
  }
  if (thread.joinable()) thread.join();
}

std::shared_ptr<const PinnedMapping> PinnedExtents::Find(uint64_t extent) const {
  absl::MutexLock lock(&mu_);
  const auto it = entries_.find(extent);
  return it == entries_.end() ? nullptr : it->second.mapping;
}

bool PinnedExtents::Wanted(uint64_t extent) {
  const absl::Time now = MonotonicClock().Now();
  absl::MutexLock lock(&mu_);
  const auto [it, added] = entries_.try_emplace(extent);
  Entry& entry = it->second;
  if (!added && (entry.mapping != nullptr || now < entry.retry_at)) return false;
  entry.retry_at = now + limits::kViewDeviceRetryAfter;
  if (!added) return true;
  oldest_first_.push_back(extent);
  if (entries_.size() > limits::kViewMappedExtentsMax) Forget(oldest_first_.front());
  return true;
}

void PinnedExtents::Forget(uint64_t extent) {
  entries_.erase(extent);
  oldest_first_.remove(extent);
}

void PinnedExtents::Pin(uint64_t extent, int device, const absl::StatusOr<Extent>& answer,
                        Descriptor file) {
  if (!answer.ok() || !answer->status.ok()) return;
  absl::MutexLock lock(&mu_);
  jobs_.push_back(
      {.extent = extent, .device = device, .bytes = answer->extent_bytes, .file = std::move(file)});
  if (!thread_.joinable()) thread_ = std::thread([this] { Work(); });
}

void PinnedExtents::Work() {
  while (true) {
    Job job;
    {
      absl::MutexLock lock(&mu_);
      mu_.AwaitWithTimeout(absl::Condition(this, &PinnedExtents::HasWork),
                           limits::kViewPinCheckInterval);
      if (stopping_) return;
      if (!jobs_.empty()) {
        job = std::move(jobs_.front());
        jobs_.pop_front();
      }
    }
    if (!job.file) {
      LetGo();
      continue;
    }
    auto mapping = PinnedMapping::Create(job.device, std::move(job.file), job.bytes);
    if (!mapping.ok()) continue;
    absl::MutexLock lock(&mu_);
    const auto it = entries_.find(job.extent);
    if (it != entries_.end()) it->second.mapping = *std::move(mapping);
  }
}

void PinnedExtents::LetGo() {
  std::vector<std::shared_ptr<const PinnedMapping>> gone;  // unpinned without the lock
  absl::MutexLock lock(&mu_);
  std::vector<uint64_t> extents;
  for (auto& [extent, entry] : entries_) {
    if (entry.mapping == nullptr || entry.mapping->Current()) continue;
    gone.push_back(std::move(entry.mapping));
    extents.push_back(extent);
  }
  for (uint64_t extent : extents) Forget(extent);
}

}  // namespace reprise::lanes::view
