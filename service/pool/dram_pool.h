// Host memory as slots: every extent is a sealed memfd of its own, mapped shared, so that a lane
// can hand one extent to one client and nothing else with it. Beside device memory it is pinned for
// the device, extent by extent, so that blocks move between the two at the bus's speed.
//
// Thread safety: as Pool.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "service/pool/pool.h"

namespace reprise::shard {

// Extent size for a pool of `capacity_bytes`: a fixed fraction of it, within bounds (limits.h).
uint64_t ExtentBytesFor(uint64_t capacity_bytes);

// Memory is pinned while this lives. nullptr: it is not.
using PinnedMemory = std::shared_ptr<const void>;
// Pins memory for a device (HbmDevice::Pin). May be called from several threads at once.
using PinMemory = std::function<absl::StatusOr<PinnedMemory>(uint8_t* memory, uint64_t bytes)>;

class DramPool final : public Pool {
 public:
  // Takes and touches about `capacity_bytes` (rounded down to whole extents, at least one), and
  // pins what `pin` can pin; the rest works, more slowly. INVALID_ARGUMENT when it is 0,
  // RESOURCE_EXHAUSTED when the machine does not have it.
  static absl::StatusOr<std::unique_ptr<DramPool>> Create(uint64_t capacity_bytes,
                                                          PinMemory pin = nullptr);
  ~DramPool() override;

  Tier tier() const override { return Tier::kDram; }

 private:
  struct Extent {
    uint8_t* address = nullptr;
    int fd = -1;
    PinnedMemory pinned;
  };

  DramPool(std::vector<Extent> extents, uint64_t extent_bytes, PinMemory pin);
  static absl::StatusOr<int> MakeMemory(uint64_t bytes);
  static absl::Status MakeExtents(std::vector<Extent>& extents, uint64_t extent_bytes,
                                  const PinMemory& pin);
  static void Pin(Extent& extent, uint64_t extent_bytes, const PinMemory& pin);
  static void Unmap(std::vector<Extent>& extents, uint64_t extent_bytes);

  uint8_t* ExtentAddress(uint32_t extent) const override { return memory_[extent].address; }
  int ExtentFd(uint32_t extent) const override { return memory_[extent].fd; }
  absl::Status Wipe(uint32_t extent) override;
  absl::Status Renew(uint32_t extent) override;
  absl::Status CopyBytes(const uint8_t* from, uint8_t* to, uint64_t bytes) override;
  absl::Status ChecksumBytes(std::span<const uint8_t* const> blocks, const BlockShape& shape,
                             std::span<Checksum128> checksums) const override;

  const PinMemory pin_;
  std::vector<Extent> memory_;
};

}  // namespace reprise::shard
