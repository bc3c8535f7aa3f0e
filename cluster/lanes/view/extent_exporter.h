// What the view lane needs to know of a shard's memory: which shareable extent an address lies in,
// and, of an extent in device memory, what another process needs to map it.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "cluster/lanes/lane.h"
#include "proto/types/ids.h"

namespace reprise::lanes {

struct ExtentView {
  uint64_t id = 0;            // never used for other memory
  int fd = -1;                // a memfd sealed against shrinking; stays the exporter's; -1: none
  uint64_t offset_bytes = 0;  // of the address in the extent
  uint64_t extent_bytes = 0;
  MemoryKind memory = MemoryKind::kHost;
  uint32_t number = 0;  // the exporter's own name for it
};

// CUDA IPC, and the device that the memory is on.
struct DeviceHandle {
  std::array<uint8_t, 64> ipc{};
  std::array<uint8_t, 16> device_uuid{};

  friend bool operator==(const DeviceHandle&, const DeviceHandle&) = default;
};

class ExtentExporter {
 public:
  virtual ~ExtentExporter() = default;
  // nullopt when `address` lies in no shareable extent. REQUIRES: the slot at `address` is pinned
  // while the answer is used; the descriptor is open for as long.
  virtual std::optional<ExtentView> Export(const uint8_t* address) = 0;

  // How the process of `attachment` maps an extent in device memory. From now on that process may
  // have it mapped, whole and writable, until Unshared; asked at most once for an extent and an
  // attachment. UNAVAILABLE or INTERNAL where the driver refuses. REQUIRES: as Export.
  virtual absl::StatusOr<DeviceHandle> Share(const ExtentView& extent, AttachmentId attachment);
  // The attachment is over and no process has anything mapped that was shared with it.
  virtual void Unshared(AttachmentId attachment);
};

}  // namespace reprise::lanes
