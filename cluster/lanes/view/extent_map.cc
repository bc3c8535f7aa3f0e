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
namespace {

// What is reserved beyond an extent: it begins where a huge page may, and after it comes something
// that is nobody's.
constexpr uint64_t kRoomBytes = 2 << 20;

absl::Status CannotMap() {
  return LaneDown(absl::StrCat("view lane: mmap: ", std::strerror(errno)));
}

}  // namespace

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
  void* const reserved = ::mmap(nullptr, bytes + kRoomBytes, PROT_NONE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return CannotMap();
  const auto address = reinterpret_cast<uintptr_t>(reserved);
  auto* const base =
      static_cast<uint8_t*>(reserved) + (kRoomBytes - address % kRoomBytes) % kRoomBytes;
  if (::mmap(base, bytes, protection, MAP_SHARED | MAP_FIXED, file.get(), 0) == MAP_FAILED) {
    const absl::Status status = CannotMap();
    ::munmap(reserved, bytes + kRoomBytes);
    return status;
  }
  // Best effort: not every kernel has huge pages for shared memory.
  ::madvise(base, bytes, MADV_HUGEPAGE);
  ::madvise(base, bytes, MADV_DONTDUMP);
  return std::shared_ptr<const Mapping>(new Mapping(reserved, base, bytes, writable));
}

Mapping::~Mapping() {
  ::munmap(reserved_, bytes_ + kRoomBytes);
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
