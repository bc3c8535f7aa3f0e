// The shard's extents in device memory as one caller has them mapped, through CUDA IPC: each at
// most once for each of the caller's GPUs, and what it takes to copy between them and host memory.
//
// An extent is opened for the GPU that will work on it: where that is not the one the memory is on,
// the driver opens it with peer access or not at all. What could not be opened (no GPU here, IPC
// refused as in many containers, no peer access) is not asked for again for
// limits::kViewDeviceRetryAfter. The first opening of a process that has not used the GPU yet takes
// as long as CUDA needs to start.
//
// Invariants: as long as an extent is mapped its tether is open (view_wire.h); a thread's current
// device is what it was before a call.
// Thread safety: all methods may be called from any thread.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "cluster/lanes/view/view_socket.h"
#include "cluster/lanes/view/view_wire.h"
#include "kernels/runtime/memory.h"
#include "kernels/runtime/stream.h"

namespace reprise::lanes::view {

// For copies from and to host memory: the device that the memory is on, where this process has it,
// else the thread's current one.
inline constexpr int kNearestDevice = -1;

class DeviceMapping {
 public:
  // LANE_DOWN when `extent` cannot be opened for `device`.
  static absl::StatusOr<std::shared_ptr<const DeviceMapping>> Create(int device,
                                                                     const Extent& extent,
                                                                     Descriptor tether);
  ~DeviceMapping();
  DeviceMapping(const DeviceMapping&) = delete;
  DeviceMapping& operator=(const DeviceMapping&) = delete;

  uint8_t* data() const { return memory_->data(); }
  uint64_t size_bytes() const { return memory_->size_bytes(); }
  int device() const { return device_; }  // that it is mapped for

 private:
  DeviceMapping(int device, Descriptor tether, kernels::OpenedDeviceMemory memory)
      : device_(device), tether_(std::move(tether)), memory_(std::move(memory)) {}

  const int device_;
  const Descriptor tether_;  // closed after the memory is
  std::optional<kernels::OpenedDeviceMemory> memory_;
};

class DeviceExtents {
 public:
  // OK, or LANE_DOWN when nothing can be mapped for `device` now.
  absl::Status Possible(int device);
  // Whether it is not possible now, for some device that was tried.
  bool Refused() const;
  // nullptr when the extent is not mapped for `device` yet.
  std::shared_ptr<const DeviceMapping> Find(uint64_t extent, int device) const;
  // Maps what the shard answered; LANE_DOWN when that is not possible here. The shard's own status
  // when it refused.
  absl::StatusOr<std::shared_ptr<const DeviceMapping>> Map(uint64_t id, int device,
                                                           absl::StatusOr<Extent> answer,
                                                           Descriptor tether);

  // Copies between device and host memory by `device`; returns when the bytes are there.
  absl::Status Copy(int device, void* to, const void* from, uint64_t bytes);

 private:
  using Key = std::pair<uint64_t, int>;

  absl::StatusOr<kernels::Stream> BorrowStream(int device);

  mutable absl::Mutex mu_;
  absl::flat_hash_map<Key, std::shared_ptr<const DeviceMapping>> mappings_ ABSL_GUARDED_BY(mu_);
  std::list<Key> oldest_first_ ABSL_GUARDED_BY(mu_);
  // On MonotonicClock().
  absl::flat_hash_map<int, absl::Time> refused_until_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<int, std::vector<kernels::Stream>> streams_ ABSL_GUARDED_BY(mu_);
};

}  // namespace reprise::lanes::view
