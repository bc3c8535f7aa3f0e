// Host memory as slots: every extent is a sealed memfd of its own, mapped shared, so that a lane
// can hand one extent to one client and nothing else with it.
//
// Thread safety: as Pool.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "service/pool/pool.h"

namespace reprise::shard {

// Extent size for a pool of `capacity_bytes`: a fixed fraction of it, within bounds (limits.h).
uint64_t ExtentBytesFor(uint64_t capacity_bytes);

class DramPool final : public Pool {
 public:
  // Takes and touches about `capacity_bytes` (rounded down to whole extents, at least one).
  // INVALID_ARGUMENT when it is 0, RESOURCE_EXHAUSTED when the machine does not have it.
  static absl::StatusOr<std::unique_ptr<DramPool>> Create(uint64_t capacity_bytes);
  ~DramPool() override;

  Tier tier() const override { return Tier::kDram; }

 private:
  struct Extent {
    uint8_t* address = nullptr;
    int fd = -1;
  };

  DramPool(std::vector<Extent> extents, uint64_t extent_bytes);
  static absl::StatusOr<int> MakeMemory(uint64_t bytes);
  static absl::Status MakeExtents(std::vector<Extent>& extents, uint64_t extent_bytes);
  static void Unmap(std::vector<Extent>& extents, uint64_t extent_bytes);

  uint8_t* ExtentAddress(uint32_t extent) const override { return memory_[extent].address; }
  int ExtentFd(uint32_t extent) const override { return memory_[extent].fd; }
  absl::Status Wipe(uint32_t extent) override;
  absl::Status Renew(uint32_t extent) override;
  absl::Status CopyBytes(const uint8_t* from, uint8_t* to, uint64_t bytes) override;
  absl::StatusOr<Checksum128> ChecksumBytes(const uint8_t* bytes,
                                            const BlockShape& shape) const override;

  std::vector<Extent> memory_;
};

}  // namespace reprise::shard
