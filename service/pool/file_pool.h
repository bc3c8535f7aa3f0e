// A file as slots: room on a local disk for what is too cold for memory.
//
// The file has no name and ends with the process, so that nothing of any tenant stays behind.
// Addresses of its slots are addresses of no memory: they stand for places in the file, and bytes
// go through CopyToHost and CopyFromHost. Reads and writes go through the page cache, which the
// kernel takes back when it is short; writing back begins at once.
//
// Invariants: all of the room is reserved at the start, so that a disk that fills up later takes
// nothing away; after one read or write that was refused the pool is lost for good, since which
// blocks are still right is not known. What the disk refuses later, when the kernel writes it back,
// nobody is told: it is found as bytes that do not match their checksum, a miss.
//
// Thread safety: as Pool.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "service/pool/pool.h"

namespace reprise::shard {

class FilePool final : public Pool {
 public:
  // Reserves about `capacity_bytes` (whole extents, at least two) on the filesystem of `folder`.
  // INVALID_ARGUMENT for no capacity or no such folder, RESOURCE_EXHAUSTED when there is no room,
  // FAILED_PRECONDITION on a filesystem that cannot reserve any.
  static absl::StatusOr<std::unique_ptr<FilePool>> Create(const std::string& folder,
                                                          uint64_t capacity_bytes);
  ~FilePool() override;

  Tier tier() const override { return Tier::kNvme; }
  bool cpu_reaches() const override { return false; }
  bool shareable() const override { return false; }
  bool lost() const override { return lost_.load(std::memory_order_relaxed); }

 private:
  FilePool(int fd, uint8_t* addresses, uint32_t extents, uint64_t extent_bytes);

  uint8_t* ExtentAddress(uint32_t extent) const override;
  int ExtentFd(uint32_t) const override { return -1; }
  absl::Status Wipe(uint32_t extent) override;
  absl::Status Renew(uint32_t extent) override { return Wipe(extent); }
  absl::Status CopyBytes(const uint8_t* from, uint8_t* to, uint64_t bytes) override;
  absl::Status ChecksumBytes(std::span<const uint8_t* const> blocks, const BlockShape& shape,
                             std::span<Checksum128> checksums) const override;

  bool InFile(const uint8_t* address) const;
  absl::Status Read(const uint8_t* from, std::span<uint8_t> to) const;
  absl::Status Write(std::span<const uint8_t> from, const uint8_t* to);
  // Lost from now on.
  absl::Status Failed(const char* doing, int error) const;

  const int fd_;
  uint8_t* const addresses_;  // reserved, never mapped
  mutable std::atomic<bool> lost_ = false;
};

}  // namespace reprise::shard
