#include "service/pool/file_pool.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/checksum/checksum.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "service/pool/dram_pool.h"

namespace reprise::shard {
namespace {

absl::Status NoFile(const std::string& folder, int error) {
  return Refusal(absl::StatusCode::kInvalidArgument, "NVME_FOLDER",
                 absl::StrCat("no file can be made in ", folder, " (", std::strerror(error),
                              "): name a folder that this process may write to, --nvme-dir"));
}

// A file that nobody else can open and that ends with its descriptor. Not every filesystem makes
// one without a name.
absl::StatusOr<int> OpenNameless(const std::string& folder) {
  const int fd = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);
  if (fd >= 0) return fd;
  std::string path = absl::StrCat(folder, "/reprise-XXXXXX");
  const int named = ::mkostemp(path.data(), O_CLOEXEC);
  if (named < 0) return NoFile(folder, errno);
  ::unlink(path.c_str());
  return named;
}

absl::Status ReserveRoom(int fd, const std::string& folder, uint64_t bytes) {
  if (::fallocate(fd, 0, 0, static_cast<off_t>(bytes)) == 0) return absl::OkStatus();
  const int error = errno;
  if (error == EOPNOTSUPP) {
    return Refusal(absl::StatusCode::kFailedPrecondition, "NVME_FILESYSTEM",
                   absl::StrCat("the filesystem of ", folder,
                                " cannot reserve room (fallocate): use one on a local disk that "
                                "can, e.g. ext4 or xfs"));
  }
  return Refusal(absl::StatusCode::kResourceExhausted, "NVME_SIZE",
                 absl::StrCat("reserving ", bytes, " bytes in ", folder, " failed (",
                              std::strerror(error), "): start with a smaller --nvme"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<FilePool>> FilePool::Create(const std::string& folder,
                                                           uint64_t capacity_bytes) {
  if (capacity_bytes == 0) {
    return Refusal(absl::StatusCode::kInvalidArgument, "NVME_SIZE",
                   "nvme_bytes = 0: give the shard room on a disk, e.g. --nvme 100GiB, or leave "
                   "--nvme out");
  }
  const uint64_t extent_bytes =
      std::min(ExtentBytesFor(capacity_bytes), limits::kFileExtentBytesMax);
  const auto extents = static_cast<uint32_t>(std::max<uint64_t>(2, capacity_bytes / extent_bytes));
  REPRISE_ASSIGN_OR_RETURN(const int fd, OpenNameless(folder));
  if (absl::Status reserved = ReserveRoom(fd, folder, extents * extent_bytes); !reserved.ok()) {
    ::close(fd);
    return reserved;
  }
  void* const addresses = ::mmap(nullptr, extents * extent_bytes, PROT_NONE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (addresses == MAP_FAILED) {
    const int error = errno;
    ::close(fd);
    return Refusal(absl::StatusCode::kResourceExhausted, "NVME_SIZE",
                   absl::StrCat("no ", extents * extent_bytes, " addresses are free (",
                                std::strerror(error), "): start with a smaller --nvme"));
  }
  return std::unique_ptr<FilePool>(
      new FilePool(fd, static_cast<uint8_t*>(addresses), extents, extent_bytes));
}

FilePool::FilePool(int fd, uint8_t* addresses, uint32_t extents, uint64_t extent_bytes)
    : Pool(extents, extent_bytes), fd_(fd), addresses_(addresses) {}

FilePool::~FilePool() {
  ::munmap(addresses_, capacity_bytes());
  ::close(fd_);
}

uint8_t* FilePool::ExtentAddress(uint32_t extent) const {
  return addresses_ + extent * extent_bytes();
}

bool FilePool::InFile(const uint8_t* address) const {
  return address >= addresses_ && address < addresses_ + capacity_bytes();
}

// In its place: room that was given back to the filesystem somebody else may take.
absl::Status FilePool::Wipe(uint32_t extent) {
  const auto at = static_cast<off_t>(extent * extent_bytes());
  const auto bytes = static_cast<off_t>(extent_bytes());
  if (::fallocate(fd_, FALLOC_FL_ZERO_RANGE, at, bytes) == 0) return absl::OkStatus();
  if (errno != EOPNOTSUPP) return Failed("wiping an extent of", errno);
  const std::vector<uint8_t> zeroes(std::min(extent_bytes(), limits::kExtentBytesMin));
  for (uint64_t done = 0; done < extent_bytes(); done += zeroes.size()) {
    const uint64_t rest = std::min<uint64_t>(zeroes.size(), extent_bytes() - done);
    REPRISE_RETURN_IF_ERROR(Write(std::span(zeroes).first(rest), ExtentAddress(extent) + done));
  }
  return absl::OkStatus();
}

absl::Status FilePool::CopyBytes(const uint8_t* from, uint8_t* to, uint64_t bytes) {
  if (!InFile(to)) return Read(from, {to, bytes});
  if (!InFile(from)) return Write({from, bytes}, to);
  std::vector<uint8_t> moved(bytes);
  REPRISE_RETURN_IF_ERROR(Read(from, moved));
  return Write(moved, to);
}

absl::Status FilePool::ChecksumBytes(std::span<const uint8_t* const> blocks,
                                     const BlockShape& shape,
                                     std::span<Checksum128> checksums) const {
  std::vector<uint8_t> block(shape.block_bytes);
  for (size_t i = 0; i < blocks.size(); ++i) {
    REPRISE_RETURN_IF_ERROR(Read(blocks[i], block));
    kernels::ChecksumBlock(block.data(), shape.block_bytes, shape.section_bytes,
                           checksums[i].bytes.data());
  }
  return absl::OkStatus();
}

absl::Status FilePool::Read(const uint8_t* from, std::span<uint8_t> to) const {
  while (!to.empty()) {
    const ssize_t got = ::pread(fd_, to.data(), to.size(), from - addresses_);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return Failed("reading", got == 0 ? ENODATA : errno);
    from += got;
    to = to.subspan(static_cast<size_t>(got));
  }
  return absl::OkStatus();
}

absl::Status FilePool::Write(std::span<const uint8_t> from, const uint8_t* to) {
  const off_t at = to - addresses_;
  const auto bytes = static_cast<off_t>(from.size());
  while (!from.empty()) {
    const ssize_t put = ::pwrite(fd_, from.data(), from.size(), to - addresses_);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return Failed("writing", put == 0 ? ENOSPC : errno);
    to += put;
    from = from.subspan(static_cast<size_t>(put));
  }
  // Dirty pages that pile up would stop all writers at once later.
  ::sync_file_range(fd_, at, bytes, SYNC_FILE_RANGE_WRITE);
  return absl::OkStatus();
}

absl::Status FilePool::Failed(const char* doing, int error) const {
  lost_.store(true, std::memory_order_relaxed);
  return Refusal(absl::StatusCode::kInternal, "SHARD_DISK_LOST",
                 absl::StrCat(doing, " the shard's disk failed (", std::strerror(error),
                              "): it is given up until the shard restarts"));
}

}  // namespace reprise::shard
