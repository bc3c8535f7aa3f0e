// Slots in device memory, as a shard's hbm pool has them, for a MemoryLaneHost behind a view
// server; and how a test reaches device memory at all.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "cluster/lanes/view/extent_exporter.h"
#include "kernels/runtime/memory.h"
#include "tests/support/memory_lane_host.h"
#include "tests/support/view_host/memfd_extents.h"

namespace reprise::testing {

// By the calling thread's GPU, the first.
void CopyByGpu(uint8_t* to, const uint8_t* from, uint64_t bytes);

class DeviceSlots final : public lanes::ExtentExporter {
 public:
  // Every `host_every`-th slot is in host memory; 0: none.
  explicit DeviceSlots(uint32_t host_every) : host_every_(host_every) {}

  HostSlot Allocate(uint64_t bytes);
  std::optional<lanes::ExtentView> Export(const uint8_t* address) override;
  absl::StatusOr<lanes::DeviceHandle> Share(const lanes::ExtentView& extent,
                                            AttachmentId attachment) override;
  void Unshared(AttachmentId attachment) override;

  // How often Share was asked, also in vain.
  uint64_t shares() const;
  uint64_t unshared() const;

 private:
  const uint32_t host_every_;
  MemfdExtents host_;
  mutable absl::Mutex mu_;
  std::vector<kernels::DeviceBuffer> extents_ ABSL_GUARDED_BY(mu_);
  uint64_t used_ ABSL_GUARDED_BY(mu_) = 0;  // of the last extent
  uint32_t slots_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t shares_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t unshared_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace reprise::testing
