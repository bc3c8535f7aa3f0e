// Slots in sealed memfds, as a shard's dram pool has them, for a MemoryLaneHost behind a view
// server.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "cluster/lanes/view/extent_exporter.h"

namespace reprise::testing {

class MemfdExtents final : public lanes::ExtentExporter {
 public:
  explicit MemfdExtents(bool sealed = true) : sealed_(sealed) {}
  ~MemfdExtents() override;

  std::span<uint8_t> Allocate(uint64_t bytes);
  std::optional<lanes::ExtentView> Export(const uint8_t* address) override;

 private:
  struct Extent {
    int fd = -1;
    uint8_t* base = nullptr;
    uint64_t bytes = 0;
    uint64_t used = 0;
  };

  const bool sealed_;
  absl::Mutex mu_;
  std::vector<Extent> extents_ ABSL_GUARDED_BY(mu_);
};

}  // namespace reprise::testing
