// What the two processes of reprise-gpu-nccl share: the blocks that move, on one GPU, and the
// transfers by bare NCCL that the lane is measured beside.
//
// Thread safety: one thread, but DeviceHost, whose methods may be called from any.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cluster/lanes/lane.h"
#include "cluster/lanes/nccl/nccl_communicator.h"
#include "cluster/link/nccl_context.h"
#include "kernels/runtime/memory.h"

namespace reprise::gpu_nccl {

// Blocks of 16 tokens in bf16, as the models' published configurations give them; as many as make
// about 64 MiB.
struct Shape {
  const char* name;
  uint64_t block_bytes;
  uint32_t blocks;
};
inline constexpr Shape kShapes[] = {
    {"Llama-3-8B", 2 * 32 * 8 * 128 * 16 * 2, 32},
    {"Llama-3-70B", 2 * 80 * 8 * 128 * 16 * 2, 12},
    {"Qwen3-235B-A22B", 2 * 94 * 4 * 128 * 16 * 2, 20},
    {"DeepSeek-V3 MLA", 61 * 576 * 16 * 2, 56},
    {"SmolLM2-1.7B", 2 * 24 * 32 * 64 * 16 * 2, 20},
    {"odd size", 1'000'016, 61},
};
inline constexpr uint32_t kShapeCount = sizeof(kShapes) / sizeof(kShapes[0]);
inline constexpr AttachmentId kAttachment{7};

// How much of it: all on a GPU, little where host memory passes for one.
struct Amount {
  uint32_t blocks_max = ~uint32_t{0};
  uint32_t blocks(uint32_t shape) const { return std::min(kShapes[shape].blocks, blocks_max); }
};

// The ids under which a shape's blocks are leased, reserved, and leased again once written.
inline LeaseId LeaseOf(uint32_t shape) {
  return LeaseId(1 + shape);
}
inline ReservationId ReservationOf(uint32_t shape) {
  return ReservationId(101 + shape);
}
inline LeaseId WrittenOf(uint32_t shape) {
  return LeaseId(201 + shape);
}

// What block `block` of a shape holds.
std::vector<uint8_t> ContentOf(uint32_t shape, uint32_t block);

// Synchronous copies; REQUIRES: the thread's device is the memory's.
absl::Status ToDevice(uint8_t* to, std::span<const uint8_t> from);
absl::StatusOr<std::vector<uint8_t>> FromDevice(std::span<const uint8_t> from);

// `blocks` blocks in device memory, one behind the other; filled with a shape's content or not.
class DeviceBlocks {
 public:
  static absl::StatusOr<DeviceBlocks> Create(Amount amount, uint32_t shape, bool filled);
  std::span<uint8_t> At(uint32_t block) const {
    return {buffer_.data() + block * block_bytes_, block_bytes_};
  }

 private:
  DeviceBlocks(kernels::DeviceBuffer buffer, uint64_t block_bytes)
      : buffer_(std::move(buffer)), block_bytes_(block_bytes) {}
  kernels::DeviceBuffer buffer_;
  uint64_t block_bytes_;
};

// A shard's end whose slots are all in device memory.
class DeviceHost final : public lanes::LaneHost {
 public:
  static absl::StatusOr<std::unique_ptr<DeviceHost>> Create(Amount amount);
  absl::StatusOr<std::vector<lanes::PinnedBytes>> OpenRead(AttachmentId attachment, LeaseId lease,
                                                           uint32_t first,
                                                           uint32_t blocks) override;
  absl::StatusOr<lanes::PinnedSlot> OpenWrite(AttachmentId attachment, ReservationId reservation,
                                              uint32_t block) override;
  absl::Status Written(AttachmentId, ReservationId, uint32_t, uint64_t) override {
    return absl::OkStatus();
  }

 private:
  explicit DeviceHost(Amount amount) : amount_(amount) {}
  const Amount amount_;
  std::vector<DeviceBlocks> stored_;
  std::vector<DeviceBlocks> written_;
};

// One end of a two-rank communicator that nothing of ours is around.
struct BareRun {
  std::string id;  // hex of ncclUniqueId
  int rank = 0;    // 0 receives, 1 sends
  uint32_t shape = 0;
  int rounds = 0;
  Amount amount;
};
absl::StatusOr<std::string> NewBareId(const cluster::NcclContext& nccl);
// What it came to. The sender is done when its bytes are on their way: it keeps its end until the
// receiver has said that it is done too, or the receiver would see a peer that went away.
struct BareEnd {
  DeviceBlocks blocks;
  std::unique_ptr<lanes::NcclCommunicator> communicator;
  std::vector<double> seconds;  // one per round
};
absl::StatusOr<BareEnd> RunBare(const cluster::NcclContext& nccl, const BareRun& run);

// The process that has the blocks: serves them, prints its address, and takes part in bare runs
// that come as lines of the file `commands`, until it is killed.
int ServePeer(Amount amount, const std::string& listen, const std::string& commands,
              const std::string& nccl_library);

}  // namespace reprise::gpu_nccl
