// One two-rank communicator, from its birth to its abort. Nothing here waits: whoever drives it
// polls.
//
// Invariants: every NCCL call is made by the one thread that drives it, so that no thread is inside
// NCCL when that thread aborts; after an error only Abort may follow; memory given to Begin stays
// NCCL's until Poll said done or Abort returned. Thread safety: none; one thread drives it.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cluster/lanes/nccl/nccl_device.h"
#include "cluster/lanes/nccl/nccl_library.h"

namespace reprise::lanes {

struct NcclGroup {
  std::vector<std::span<const uint8_t>> sends;
  std::vector<std::span<uint8_t>> receives;
};

class NcclCommunicator {
 public:
  struct Options {
    std::shared_ptr<const NcclLibrary> nccl;
    std::shared_ptr<NcclDevice> device;
    ncclUniqueId id{};
    int rank = 0;  // 0 or 1
  };

  // Starts to connect.
  static absl::StatusOr<std::unique_ptr<NcclCommunicator>> Create(Options options);
  // Aborts.
  ~NcclCommunicator();

  // True when what was begun (connecting, a group) is done; false while it goes on; UNAVAILABLE
  // (LANE_DOWN) when the communicator is broken.
  absl::StatusOr<bool> Poll();

  // Sends and receives in one group, in order. REQUIRES: Poll() said done.
  absl::Status Begin(const NcclGroup& group);

  // Gives up everything that is under way. Returns when NCCL lets go of all memory, which may take
  // its time.
  void Abort();

 private:
  NcclCommunicator(Options options, std::unique_ptr<DeviceQueue> queue)
      : options_(std::move(options)), queue_(std::move(queue)) {}

  const Options options_;
  const std::unique_ptr<DeviceQueue> queue_;
  ncclComm_t comm_ = nullptr;
};

}  // namespace reprise::lanes
