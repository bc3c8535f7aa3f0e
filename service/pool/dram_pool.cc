#include "service/pool/dram_pool.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/checksum/checksum.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::shard {
namespace {

absl::Status NoMemory(absl::string_view what, int error) {
  return Refusal(
      absl::StatusCode::kResourceExhausted, "NO_MEMORY",
      absl::StrCat(what, " failed (", std::strerror(error), "): start with a smaller --dram"));
}

// Bytes that the machine can still give, or 0 when it does not say.
uint64_t AvailableBytes() {
  std::ifstream meminfo("/proc/meminfo");
  std::string name, unit;
  uint64_t kib = 0;
  while (meminfo >> name >> kib) {
    if (name == "MemAvailable:") return kib << 10;
    std::getline(meminfo, unit);
  }
  return 0;
}

void Touch(uint8_t* bytes, uint64_t size_bytes) {
  const auto page_bytes = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  for (uint64_t at = 0; at < size_bytes; at += page_bytes) {
    reinterpret_cast<volatile uint8_t*>(bytes)[at] = 0;
  }
}

}  // namespace

uint64_t ExtentBytesFor(uint64_t capacity_bytes) {
  const uint64_t share =
      capacity_bytes / limits::kExtentsPerPool / limits::kExtentBytesMin * limits::kExtentBytesMin;
  return std::clamp(share, limits::kExtentBytesMin, limits::kExtentBytesMax);
}

absl::StatusOr<std::unique_ptr<DramPool>> DramPool::Create(uint64_t capacity_bytes, PinMemory pin) {
  if (capacity_bytes == 0) {
    return Refusal(absl::StatusCode::kInvalidArgument, "DRAM_SIZE",
                   "dram_bytes = 0: give the shard memory, e.g. --dram 1GiB");
  }
  const uint64_t extent_bytes = ExtentBytesFor(capacity_bytes);
  const uint64_t count = std::max<uint64_t>(1, capacity_bytes / extent_bytes);
  const uint64_t available = AvailableBytes();
  if (available > 0 && count * extent_bytes > available) {
    return Refusal(
        absl::StatusCode::kResourceExhausted, "NO_MEMORY",
        absl::StrCat("dram_bytes = ", capacity_bytes, " is more than the ", available,
                     " bytes that this machine has available: start with a smaller --dram"));
  }
  std::vector<Extent> extents(count);
  if (absl::Status made = MakeExtents(extents, extent_bytes, pin); !made.ok()) {
    Unmap(extents, extent_bytes);
    return made;
  }
  return std::unique_ptr<DramPool>(new DramPool(std::move(extents), extent_bytes, std::move(pin)));
}

absl::StatusOr<int> DramPool::MakeMemory(uint64_t bytes) {
  const int fd = ::memfd_create("reprise-extent", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return NoMemory("memfd_create", errno);
  // Sealed in size: a client that was handed the file cannot shorten it under the shard's feet.
  const bool made = ::ftruncate(fd, static_cast<off_t>(bytes)) == 0 &&
                    ::fallocate(fd, 0, 0, static_cast<off_t>(bytes)) == 0 &&
                    ::fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0;
  if (made) return fd;
  const int error = errno;
  ::close(fd);
  return NoMemory(absl::StrCat("taking ", bytes, " bytes of shared memory"), error);
}

absl::Status DramPool::MakeExtents(std::vector<Extent>& extents, uint64_t extent_bytes,
                                   const PinMemory& pin) {
  for (Extent& extent : extents) {
    REPRISE_ASSIGN_OR_RETURN(extent.fd, MakeMemory(extent_bytes));
    void* address = ::mmap(nullptr, extent_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, extent.fd, 0);
    if (address == MAP_FAILED) return NoMemory("mmap", errno);
    extent.address = static_cast<uint8_t*>(address);
    // Both are best effort: not every kernel has huge pages for shared memory.
    ::madvise(address, extent_bytes, MADV_HUGEPAGE);
    ::madvise(address, extent_bytes, MADV_DONTDUMP);
  }
  const size_t threads = std::clamp<size_t>(std::thread::hardware_concurrency(), 1, extents.size());
  std::atomic<size_t> next{0};
  std::vector<std::thread> touchers;
  for (size_t i = 0; i < threads; ++i) {
    touchers.emplace_back([&] {
      for (size_t at = next++; at < extents.size(); at = next++) {
        Touch(extents[at].address, extent_bytes);
        Pin(extents[at], extent_bytes, pin);
      }
    });
  }
  for (std::thread& toucher : touchers) toucher.join();
  return absl::OkStatus();
}

void DramPool::Pin(Extent& extent, uint64_t extent_bytes, const PinMemory& pin) {
  if (!pin) return;
  absl::StatusOr<PinnedMemory> pinned = pin(extent.address, extent_bytes);
  if (pinned.ok()) extent.pinned = *std::move(pinned);
}

void DramPool::Unmap(std::vector<Extent>& extents, uint64_t extent_bytes) {
  for (Extent& extent : extents) {
    extent.pinned.reset();
    if (extent.address != nullptr) ::munmap(extent.address, extent_bytes);
    if (extent.fd >= 0) ::close(extent.fd);
  }
  extents.clear();
}

DramPool::DramPool(std::vector<Extent> extents, uint64_t extent_bytes, PinMemory pin)
    : Pool(static_cast<uint32_t>(extents.size()), extent_bytes),
      pin_(std::move(pin)),
      memory_(std::move(extents)) {}

DramPool::~DramPool() {
  Unmap(memory_, extent_bytes());
}

absl::Status DramPool::Wipe(uint32_t extent) {
  std::memset(memory_[extent].address, 0, extent_bytes());
  return absl::OkStatus();
}

absl::Status DramPool::Renew(uint32_t extent) {
  Extent& old = memory_[extent];
  old.pinned.reset();  // a device would keep the old pages
  // Gives the old pages back even while somebody else still maps the file.
  ::fallocate(old.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
              static_cast<off_t>(extent_bytes()));
  REPRISE_ASSIGN_OR_RETURN(const int fd, MakeMemory(extent_bytes()));
  void* address =
      ::mmap(old.address, extent_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
  if (address == MAP_FAILED) {
    const int error = errno;
    ::close(fd);
    return NoMemory("mmap", error);
  }
  ::madvise(address, extent_bytes(), MADV_HUGEPAGE);
  ::madvise(address, extent_bytes(), MADV_DONTDUMP);
  ::close(old.fd);
  old.fd = fd;
  Touch(old.address, extent_bytes());
  Pin(old, extent_bytes(), pin_);
  return absl::OkStatus();
}

absl::Status DramPool::CopyBytes(const uint8_t* from, uint8_t* to, uint64_t bytes) {
  std::memcpy(to, from, bytes);
  return absl::OkStatus();
}

absl::Status DramPool::ChecksumBytes(std::span<const uint8_t* const> blocks,
                                     const BlockShape& shape,
                                     std::span<Checksum128> checksums) const {
  static_assert(kernels::kChecksumDigestBytes == kChecksumBytes);
  for (size_t i = 0; i < blocks.size(); ++i) {
    kernels::ChecksumBlock(blocks[i], shape.block_bytes, shape.section_bytes,
                           checksums[i].bytes.data());
  }
  return absl::OkStatus();
}

}  // namespace reprise::shard
