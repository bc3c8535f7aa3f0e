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

absl::StatusOr<std::shared_ptr<const PinnedMapping>> PinnedMapping::Create(const Options& options,
                                                                           Descriptor file) {
  const uint64_t file_blocks = BlocksOf(file);
  REPRISE_ASSIGN_OR_RETURN(auto mapping, Mapping::Create(file, options.bytes, options.writable));
  REPRISE_ASSIGN_OR_RETURN(const auto scope, kernels::DeviceScope::Create(options.device));
  REPRISE_ASSIGN_OR_RETURN(
      auto pinned, options.writable
                       ? kernels::PinnedRange::Create(mapping->writable_data(), options.bytes)
                       : kernels::PinnedRange::CreateReadOnly(mapping->data(), options.bytes));
  return std::shared_ptr<const PinnedMapping>(new PinnedMapping(
      options.device, std::move(file), file_blocks, std::move(mapping), std::move(pinned)));
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

std::shared_ptr<const PinnedMapping> PinnedExtents::Find(const Key& key) const {
  absl::MutexLock lock(&mu_);
  for (const bool writable : {true, false}) {
    if (key.writable && !writable) break;
    const auto it = entries_.find({.extent = key.extent, .writable = writable});
    if (it != entries_.end() && it->second.mapping != nullptr) return it->second.mapping;
  }
  return nullptr;
}

bool PinnedExtents::Wanted(const Key& key) {
  const absl::Time now = MonotonicClock().Now();
  absl::MutexLock lock(&mu_);
  const auto [it, added] = entries_.try_emplace(key);
  Entry& entry = it->second;
  if (!added && (entry.mapping != nullptr || now < entry.retry_at)) return false;
  entry.retry_at = now + limits::kViewDeviceRetryAfter;
  if (!added) return true;
  oldest_first_.push_back(key);
  if (entries_.size() > limits::kViewMappedExtentsMax) Forget(oldest_first_.front());
  return true;
}

void PinnedExtents::Forget(const Key& key) {
  const Key gone = key;  // of the list, perhaps
  entries_.erase(gone);
  oldest_first_.remove(gone);
}

void PinnedExtents::Pin(const Key& key, int device, const absl::StatusOr<Extent>& answer,
                        Descriptor file) {
  if (!answer.ok() || !answer->status.ok()) return;
  absl::MutexLock lock(&mu_);
  jobs_.push_back(
      {.key = key,
       .options = {.device = device, .bytes = answer->extent_bytes, .writable = key.writable},
       .file = std::move(file)});
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
    auto mapping = PinnedMapping::Create(job.options, std::move(job.file));
    if (!mapping.ok()) continue;
    absl::MutexLock lock(&mu_);
    const auto it = entries_.find(job.key);
    if (it != entries_.end()) it->second.mapping = *std::move(mapping);
  }
}

void PinnedExtents::LetGo() {
  std::vector<std::shared_ptr<const PinnedMapping>> gone;  // unpinned without the lock
  absl::MutexLock lock(&mu_);
  std::vector<Key> keys;
  for (auto& [key, entry] : entries_) {
    if (entry.mapping == nullptr || entry.mapping->Current()) continue;
    gone.push_back(std::move(entry.mapping));
    keys.push_back(key);
  }
  for (const Key& key : keys) Forget(key);
}

}  // namespace reprise::lanes::view
