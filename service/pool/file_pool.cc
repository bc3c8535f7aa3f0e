#include "service/pool/file_pool.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
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

// The pool's own descriptor of a file that it is given: the same open file, so that closing it
// leaves the owner's lock (flock).
absl::StatusOr<int> OpenKept(const KeptFile& kept, const std::string& folder) {
  const int fd = ::fcntl(kept.fd, F_DUPFD_CLOEXEC, 0);
  if (fd < 0) return NoFile(folder, errno);
  return fd;
}

absl::StatusOr<uint64_t> FileBytes(int fd, const std::string& folder) {
  struct stat file {};
  if (::fstat(fd, &file) != 0) return NoFile(folder, errno);
  return static_cast<uint64_t>(file.st_size);
}

// From `earlier_bytes` to the pool's: room first, so that a file that gets none loses nothing.
absl::Status Resize(int fd, const FilePoolOptions& options, uint64_t earlier_bytes) {
  const uint64_t bytes = FilePool::GeometryFor(options.capacity_bytes).bytes();
  if (absl::Status reserved = ReserveRoom(fd, options.folder, bytes); !reserved.ok()) {
    // A part of the room may have been taken.
    (void)!::ftruncate(fd, static_cast<off_t>(earlier_bytes));
    return reserved;
  }
  if (earlier_bytes > bytes && ::ftruncate(fd, static_cast<off_t>(bytes)) != 0) {
    return NoFile(options.folder, errno);
  }
  return absl::OkStatus();
}

absl::StatusOr<uint8_t*> ReserveAddresses(uint64_t bytes) {
  void* const addresses =
      ::mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (addresses != MAP_FAILED) return static_cast<uint8_t*>(addresses);
  return Refusal(absl::StatusCode::kResourceExhausted, "NVME_SIZE",
                 absl::StrCat("no ", bytes, " addresses are free (", std::strerror(errno),
                              "): start with a smaller --nvme"));
}

absl::StatusOr<std::unique_ptr<FileCipher>> MakeCipher(const FilePoolOptions& options) {
  if (options.kept.has_value()) {
    REPRISE_CHECK(options.kept->key.has_value() == (options.cipher != DiskCipher::kNone));
  }
  if (options.cipher == DiskCipher::kNone) return nullptr;
  return options.kept.has_value() ? FileCipher::WithKey(*options.kept->key) : FileCipher::Create();
}

// Of `bytes` at `at` what is enciphered at once: whole pieces, or a part of one.
size_t PartBytes(uint64_t at, size_t bytes) {
  constexpr size_t kPiece = FileCipher::kPieceBytes;
  const size_t to_next = kPiece - at % kPiece;
  if (to_next < kPiece || bytes < kPiece) return std::min(to_next, bytes);
  // The next part begins with a unit.
  return std::min<size_t>(bytes / kPiece * kPiece,
                          limits::kFileCipherBytes - at % FileCipher::kUnitBytes);
}

bool IsTorn(std::span<const uint8_t> part) {
  return part.size() < FileCipher::kPieceBytes;
}

// Where this thread's ciphertext lies between the cipher and the file.
std::span<uint8_t> CipherBuffer(size_t bytes) {
  thread_local std::vector<uint8_t> buffer(limits::kFileCipherBytes);
  return std::span(buffer).first(bytes);
}

}  // namespace

KeptFile::~KeptFile() {
  if (key.has_value()) OPENSSL_cleanse(key->data(), key->size());
}

FilePoolGeometry FilePool::GeometryFor(uint64_t capacity_bytes) {
  const uint64_t extent_bytes =
      std::min(ExtentBytesFor(capacity_bytes), limits::kFileExtentBytesMax);
  return {.extents = static_cast<uint32_t>(std::max<uint64_t>(2, capacity_bytes / extent_bytes)),
          .extent_bytes = extent_bytes};
}

absl::StatusOr<std::unique_ptr<FilePool>> FilePool::Create(const FilePoolOptions& options) {
  if (options.capacity_bytes == 0) {
    return Refusal(absl::StatusCode::kInvalidArgument, "NVME_SIZE",
                   "nvme_bytes = 0: give the shard room on a disk, e.g. --nvme 100GiB, or leave "
                   "--nvme out");
  }
  const FilePoolGeometry geometry = GeometryFor(options.capacity_bytes);
  REPRISE_ASSIGN_OR_RETURN(std::unique_ptr<FileCipher> cipher, MakeCipher(options));
  REPRISE_ASSIGN_OR_RETURN(const int fd, options.kept.has_value()
                                             ? OpenKept(*options.kept, options.folder)
                                             : OpenNameless(options.folder));
  absl::Cleanup close = [fd] { ::close(fd); };
  REPRISE_ASSIGN_OR_RETURN(const uint64_t earlier_bytes, FileBytes(fd, options.folder));
  REPRISE_RETURN_IF_ERROR(Resize(fd, options, earlier_bytes));
  REPRISE_ASSIGN_OR_RETURN(uint8_t* const addresses, ReserveAddresses(geometry.bytes()));
  std::move(close).Cancel();
  return std::unique_ptr<FilePool>(new FilePool(fd, addresses, geometry,
                                                earlier_bytes > 0 ? kEarlierProcess : KeySpaceId(),
                                                std::move(cipher)));
}

FilePool::FilePool(int fd, uint8_t* addresses, const FilePoolGeometry& geometry,
                   KeySpaceId previous_owner, std::unique_ptr<FileCipher> cipher)
    : Pool(geometry.extents, geometry.extent_bytes, previous_owner),
      fd_(fd),
      addresses_(addresses),
      cipher_(std::move(cipher)) {}

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

// In its place: room that was given back to the filesystem somebody else may take. And not
// enciphered: zeroes on the disk are zeroes for the cipher too.
absl::Status FilePool::Wipe(uint32_t extent) {
  const uint64_t at = extent * extent_bytes();
  if (::fallocate(fd_, FALLOC_FL_ZERO_RANGE, static_cast<off_t>(at),
                  static_cast<off_t>(extent_bytes())) == 0) {
    return absl::OkStatus();
  }
  if (errno != EOPNOTSUPP) return Failed("wiping an extent of", errno);
  const std::vector<uint8_t> zeroes(std::min(extent_bytes(), limits::kExtentBytesMin));
  for (uint64_t done = 0; done < extent_bytes(); done += zeroes.size()) {
    const uint64_t rest = std::min<uint64_t>(zeroes.size(), extent_bytes() - done);
    REPRISE_RETURN_IF_ERROR(WriteFile(std::span(zeroes).first(rest), at + done));
  }
  return absl::OkStatus();
}

absl::Status FilePool::Sync() {
  while (::fdatasync(fd_) != 0) {
    if (errno != EINTR) return Failed("writing back", errno);
  }
  return absl::OkStatus();
}

absl::Status FilePool::CopyBytes(const uint8_t* from, uint8_t* to, uint64_t bytes) {
  if (!InFile(to)) return Read(from, {to, bytes});
  if (!InFile(from)) return Write({from, bytes}, to);
  std::vector<uint8_t> moved(std::min(bytes, limits::kFileCipherBytes));
  for (uint64_t done = 0; done < bytes; done += moved.size()) {
    const auto part = std::span(moved).first(std::min<uint64_t>(moved.size(), bytes - done));
    REPRISE_RETURN_IF_ERROR(Read(from + done, part));
    REPRISE_RETURN_IF_ERROR(Write(part, to + done));
  }
  return absl::OkStatus();
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
  const auto at = static_cast<uint64_t>(from - addresses_);
  return cipher_ == nullptr ? ReadFile(at, to) : ReadDeciphered(at, to);
}

absl::Status FilePool::Write(std::span<const uint8_t> from, const uint8_t* to) {
  const auto at = static_cast<uint64_t>(to - addresses_);
  REPRISE_RETURN_IF_ERROR(cipher_ == nullptr ? WriteFile(from, at) : WriteEnciphered(from, at));
  // Dirty pages that pile up would stop all writers at once later.
  ::sync_file_range(fd_, static_cast<off_t>(at), static_cast<off_t>(from.size()),
                    SYNC_FILE_RANGE_WRITE);
  return absl::OkStatus();
}

absl::Status FilePool::ReadDeciphered(uint64_t at, std::span<uint8_t> to) const {
  while (!to.empty()) {
    const std::span<uint8_t> part = to.first(PartBytes(at, to.size()));
    if (IsTorn(part)) {
      REPRISE_RETURN_IF_ERROR(ReadTorn(at, part));
    } else {
      REPRISE_RETURN_IF_ERROR(ReadFile(at, part));
      cipher_->Decrypt(at, part);
    }
    at += part.size();
    to = to.subspan(part.size());
  }
  return absl::OkStatus();
}

absl::Status FilePool::WriteEnciphered(std::span<const uint8_t> from, uint64_t at) {
  while (!from.empty()) {
    const std::span<const uint8_t> part = from.first(PartBytes(at, from.size()));
    if (IsTorn(part)) {
      REPRISE_RETURN_IF_ERROR(WriteTorn(part, at));
    } else {
      const std::span<uint8_t> ciphertext = CipherBuffer(part.size());
      cipher_->Encrypt(at, part, ciphertext);
      REPRISE_RETURN_IF_ERROR(WriteFile(ciphertext, at));
    }
    at += part.size();
    from = from.subspan(part.size());
  }
  return absl::OkStatus();
}

absl::Status FilePool::ReadTorn(uint64_t at, std::span<uint8_t> to) const {
  std::array<uint8_t, FileCipher::kPieceBytes> piece;
  const size_t before = at % piece.size();
  absl::MutexLock lock(&torn_mu_);
  REPRISE_RETURN_IF_ERROR(ReadFile(at - before, piece));
  cipher_->Decrypt(at - before, piece);
  std::memcpy(to.data(), &piece[before], to.size());
  return absl::OkStatus();
}

// Two threads may each write their bytes of one piece.
absl::Status FilePool::WriteTorn(std::span<const uint8_t> from, uint64_t at) {
  std::array<uint8_t, FileCipher::kPieceBytes> piece;
  const size_t before = at % piece.size();
  absl::MutexLock lock(&torn_mu_);
  REPRISE_RETURN_IF_ERROR(ReadFile(at - before, piece));
  cipher_->Decrypt(at - before, piece);
  std::memcpy(&piece[before], from.data(), from.size());
  cipher_->Encrypt(at - before, piece, piece);
  return WriteFile(piece, at - before);
}

absl::Status FilePool::ReadFile(uint64_t at, std::span<uint8_t> to) const {
  while (!to.empty()) {
    const ssize_t got = ::pread(fd_, to.data(), to.size(), static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return Failed("reading", got == 0 ? ENODATA : errno);
    at += static_cast<uint64_t>(got);
    to = to.subspan(static_cast<size_t>(got));
  }
  return absl::OkStatus();
}

absl::Status FilePool::WriteFile(std::span<const uint8_t> from, uint64_t at) {
  while (!from.empty()) {
    const ssize_t put = ::pwrite(fd_, from.data(), from.size(), static_cast<off_t>(at));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return Failed("writing", put == 0 ? ENOSPC : errno);
    at += static_cast<uint64_t>(put);
    from = from.subspan(static_cast<size_t>(put));
  }
  return absl::OkStatus();
}

absl::Status FilePool::Failed(const char* doing, int error) const {
  lost_.store(true, std::memory_order_relaxed);
  return Refusal(absl::StatusCode::kInternal, "SHARD_DISK_LOST",
                 absl::StrCat(doing, " the shard's disk failed (", std::strerror(error),
                              "): it is given up until the shard restarts"));
}

}  // namespace reprise::shard
