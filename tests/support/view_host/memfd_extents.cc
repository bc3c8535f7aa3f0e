#include "tests/support/view_host/memfd_extents.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "proto/types/status_macros.h"

namespace reprise::testing {
namespace {
constexpr uint64_t kExtentBytes = 8 << 20;
constexpr uint64_t kAlignBytes = 64;
}  // namespace

MemfdExtents::~MemfdExtents() {
  for (const Extent& extent : extents_) {
    ::munmap(extent.base, extent.bytes);
    ::close(extent.fd);
  }
}

std::span<uint8_t> MemfdExtents::Allocate(uint64_t bytes) {
  absl::MutexLock lock(&mu_);
  const uint64_t slot_bytes = (bytes + kAlignBytes - 1) / kAlignBytes * kAlignBytes;
  if (extents_.empty() || extents_.back().bytes - extents_.back().used < slot_bytes) {
    Extent extent;
    extent.bytes = std::max(kExtentBytes, slot_bytes);
    extent.fd = ::memfd_create("reprise-test-extent", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    REPRISE_CHECK(extent.fd >= 0 && ::ftruncate(extent.fd, static_cast<off_t>(extent.bytes)) == 0);
    if (sealed_) REPRISE_CHECK(::fcntl(extent.fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0);
    void* base = ::mmap(nullptr, extent.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, extent.fd, 0);
    REPRISE_CHECK(base != MAP_FAILED);
    extent.base = static_cast<uint8_t*>(base);
    extents_.push_back(extent);
  }
  Extent& extent = extents_.back();
  const std::span<uint8_t> slot(extent.base + extent.used, bytes);
  extent.used += slot_bytes;
  return slot;
}

std::optional<lanes::ExtentView> MemfdExtents::Export(const uint8_t* address) {
  absl::MutexLock lock(&mu_);
  for (size_t i = 0; i < extents_.size(); ++i) {
    const Extent& extent = extents_[i];
    if (address < extent.base || address >= extent.base + extent.bytes) continue;
    return lanes::ExtentView{.id = i + 1,
                             .fd = extent.fd,
                             .offset_bytes = static_cast<uint64_t>(address - extent.base),
                             .extent_bytes = extent.bytes};
  }
  return std::nullopt;
}

}  // namespace reprise::testing
