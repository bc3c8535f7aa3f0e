// A file as slots: room on a local disk for what is too cold for memory.
//
// The file has no name and ends with the process. What is written to it is ciphertext under a key
// that ends with the pool (file_cipher.h), unless it is told otherwise: nothing of any tenant stays
// behind on the disk. A wiped place is zeroes there, and is read as zeroes. Addresses of its slots
// are addresses of no memory: they stand for places in the file, and bytes go through CopyToHost
// and CopyFromHost. Reads and writes go through the page cache, which the kernel takes back when it
// is short; writing back begins at once.
//
// A kept file is somebody else's, and so is its key: the pool leaves both behind as they are, and
// the next process's pool reads what this one wrote. Who had what there is not in the file: an
// extent of which a new pool is told nothing with Take is nobody's, and is wiped before anybody
// gets it. In one that is taken back, slots that are not keep what they had until they are written.
//
// Invariants: all of the room is reserved at the start, so that a disk that fills up later takes
// nothing away; after one read or write that was refused the pool is lost for good, since which
// blocks are still right is not known. What the disk refuses later, when the kernel writes it back,
// Sync alone is told: it is found as bytes that do not match their checksum, a miss. A slot shares
// no piece of the cipher with another one, so that no write reads or rewrites another slot's bytes.
//
// Thread safety: as Pool. A range that ends within a piece of the cipher takes a lock for that
// piece.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "service/pool/file_cipher.h"
#include "service/pool/pool.h"

namespace reprise::shard {

// A file that outlives the process. Every copy overwrites its key at its end.
struct KeptFile {
  ~KeptFile();

  // Somebody else's, who alone has the file (flock); the pool makes its own of it. An empty file
  // has nothing of an earlier process.
  int fd = -1;
  // REQUIRES: there is one exactly when the cipher is not kNone.
  std::optional<FileCipher::Key> key;
};

struct FilePoolOptions {
  std::string folder;
  uint64_t capacity_bytes = 0;
  DiskCipher cipher = DiskCipher::kAes256;
  std::optional<KeptFile> kept;  // nullopt: a file of the pool's own, without a name, in `folder`
};

struct FilePoolGeometry {
  uint32_t extents = 0;
  uint64_t extent_bytes = 0;
  uint64_t bytes() const { return extents * extent_bytes; }
};

class FilePool final : public Pool {
 public:
  // Reserves about `capacity_bytes` (whole extents, at least two) on the filesystem of `folder`. A
  // kept file becomes as long as that; what was within it stays.
  // INVALID_ARGUMENT for no capacity or no such folder, RESOURCE_EXHAUSTED when there is no room,
  // FAILED_PRECONDITION on a filesystem that cannot reserve any, or without the cipher. A kept file
  // is then no longer than it was.
  static absl::StatusOr<std::unique_ptr<FilePool>> Create(const FilePoolOptions& options);
  // What Create cuts a file into.
  static FilePoolGeometry GeometryFor(uint64_t capacity_bytes);
  ~FilePool() override;

  Tier tier() const override { return Tier::kNvme; }
  bool cpu_reaches() const override { return false; }
  bool shareable() const override { return false; }
  bool lost() const override { return lost_.load(std::memory_order_relaxed); }
  absl::Status Sync() override;

 private:
  FilePool(int fd, uint8_t* addresses, const FilePoolGeometry& geometry, KeySpaceId previous_owner,
           std::unique_ptr<FileCipher> cipher);

  uint8_t* ExtentAddress(uint32_t extent) const override;
  int ExtentFd(uint32_t) const override { return -1; }
  absl::Status Wipe(uint32_t extent) override;
  absl::Status Renew(uint32_t extent) override { return Wipe(extent); }
  absl::Status CopyBytes(const uint8_t* from, uint8_t* to, uint64_t bytes) override;
  absl::Status ChecksumBytes(std::span<const uint8_t* const> blocks, const BlockShape& shape,
                             std::span<Checksum128> checksums) const override;

  bool InFile(const uint8_t* address) const;
  // Plaintext from and to the places of the addresses.
  absl::Status Read(const uint8_t* from, std::span<uint8_t> to) const;
  absl::Status Write(std::span<const uint8_t> from, const uint8_t* to);
  absl::Status ReadDeciphered(uint64_t at, std::span<uint8_t> to) const;
  absl::Status WriteEnciphered(std::span<const uint8_t> from, uint64_t at);
  // Less than a piece of the cipher.
  absl::Status ReadTorn(uint64_t at, std::span<uint8_t> to) const;
  absl::Status WriteTorn(std::span<const uint8_t> from, uint64_t at);
  // What the file has, as it is there.
  absl::Status ReadFile(uint64_t at, std::span<uint8_t> to) const;
  absl::Status WriteFile(std::span<const uint8_t> from, uint64_t at);
  // Lost from now on.
  absl::Status Failed(const char* doing, int error) const;

  const int fd_;
  uint8_t* const addresses_;                  // reserved, never mapped
  const std::unique_ptr<FileCipher> cipher_;  // nullptr: none
  mutable absl::Mutex torn_mu_;               // of pieces of which a part is read or written
  mutable std::atomic<bool> lost_ = false;
};

}  // namespace reprise::shard
