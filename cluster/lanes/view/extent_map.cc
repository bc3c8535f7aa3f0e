#include "cluster/lanes/view/extent_map.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cluster/lanes/lane_status.h"
#include "proto/types/limits.h"

namespace reprise::lanes::view {

absl::StatusOr<std::shared_ptr<const Mapping>> Mapping::Create(const Descriptor& file,
                                                               uint64_t bytes, bool writable) {
  struct stat info {};
  const int seals = ::fcntl(file.get(), F_GET_SEALS);
  if (!file || bytes == 0 || ::fstat(file.get(), &info) != 0 || seals < 0 ||
      (seals & F_SEAL_SHRINK) == 0 || info.st_size < 0 ||
      static_cast<uint64_t>(info.st_size) < bytes) {
    return LaneDown("view lane: the extent is no file that is safe to map");
  }
  const int protection = PROT_READ | (writable ? PROT_WRITE : 0);
  void* base = ::mmap(nullptr, bytes, protection, MAP_SHARED, file.get(), 0);
  if (base == MAP_FAILED) return LaneDown(absl::StrCat("view lane: mmap: ", std::strerror(errno)));
  // Best effort: not every kernel has huge pages for shared memory.
  ::madvise(base, bytes, MADV_HUGEPAGE);
  ::madvise(base, bytes, MADV_DONTDUMP);
  return std::shared_ptr<const Mapping>(new Mapping(static_cast<uint8_t*>(base), bytes, writable));
}

Mapping::~Mapping() {
  ::munmap(base_, bytes_);
}

std::shared_ptr<const Mapping> ExtentMap::Find(uint64_t extent, bool writable) const {
  absl::MutexLock lock(&mu_);
  const auto it = mappings_.find(Key(extent, writable));
  return it == mappings_.end() ? nullptr : it->second;
}

void ExtentMap::Add(uint64_t extent, bool writable, std::shared_ptr<const Mapping> mapping) {
  absl::MutexLock lock(&mu_);
  const Key key(extent, writable);
  if (!mappings_.emplace(key, std::move(mapping)).second) return;
  oldest_first_.push_back(key);
  if (mappings_.size() <= limits::kViewMappedExtentsMax) return;
  mappings_.erase(oldest_first_.front());
  oldest_first_.pop_front();
}

}  // namespace reprise::lanes::view
