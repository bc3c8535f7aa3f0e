// Device memory as slots: a few large extents of one GPU, allocated once.
//
// Invariants: an extent that another process may have mapped goes to no other key space until that
// process is known to be gone (Unshared): unlike a memfd, device memory cannot be taken from under
// a mapping. Until then its space is lost to others, and the pool says so (Transferable). No
// status of a device leaves the pool with a reason of the device's own: to whoever reads it, a
// reason that begins with GPU_ is about a GPU of his.
//
// Thread safety: as Pool.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "service/pool/hbm_device.h"
#include "service/pool/pool.h"

namespace reprise::shard {

class HbmPool final : public Pool {
 public:
  // Takes about `capacity_bytes` of the device (whole extents, at least two). INVALID_ARGUMENT when
  // it is 0, RESOURCE_EXHAUSTED when the device does not have it.
  static absl::StatusOr<std::unique_ptr<HbmPool>> Create(std::unique_ptr<HbmDevice> device,
                                                         uint64_t capacity_bytes);
  ~HbmPool() override;

  Tier tier() const override { return Tier::kHbm; }
  bool cpu_reaches() const override { return false; }
  bool lost() const override { return lost_.load(std::memory_order_relaxed); }

  absl::StatusOr<HbmHandle> Share(uint32_t extent, AttachmentId attachment) override;
  void Unshared(AttachmentId attachment) override;
  bool Transferable(uint32_t extent) const override;

 private:
  HbmPool(std::unique_ptr<HbmDevice> device, std::vector<uint8_t*> extents, uint64_t extent_bytes);

  uint8_t* ExtentAddress(uint32_t extent) const override { return memory_[extent]; }
  int ExtentFd(uint32_t) const override { return -1; }
  absl::Status Wipe(uint32_t extent) override;
  absl::Status Renew(uint32_t extent) override;
  absl::Status CopyBytes(const uint8_t* from, uint8_t* to, uint64_t bytes) override;
  absl::Status ChecksumBytes(std::span<const uint8_t* const> blocks, const BlockShape& shape,
                             std::span<Checksum128> checksums) const override;
  // The same failure as the shard's: INTERNAL SHARD_GPU_LOST and so on. Notes when it is for good.
  absl::Status AsShards(const absl::Status& status) const;

  const std::unique_ptr<HbmDevice> device_;
  const std::vector<uint8_t*> memory_;
  mutable std::atomic<bool> lost_ = false;
  mutable absl::Mutex shared_mu_;
  absl::flat_hash_map<AttachmentId, absl::flat_hash_set<uint32_t>> shared_
      ABSL_GUARDED_BY(shared_mu_);
};

}  // namespace reprise::shard
