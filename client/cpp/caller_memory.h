// The caller's memory, and the two ends that a lane sees of it: a sink that counts a block only
// when its checksum holds, and a source that makes the checksum from the very bytes that are
// stored. Under a codec the two decode and encode on the way.
//
// Memory is one buffer per block in the canonical layout, or an engine's paged tensors by a plan
// that is made once; in host memory, or all of it on one GPU (device_memory.h, which has sinks and
// sources of its own).
//
// Thread safety: CallerMemory is a value; a sink or source is used by one thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/cpp/staging.h"
#include "cluster/lanes/lane.h"
#include "kernels/block_copy/block_copy.h"
#include "kernels/block_copy/block_copy_cuda.h"
#include "kernels/quantize/quant_format.h"
#include "kernels/runtime/device.h"
#include "kernels/runtime/stream.h"
#include "proto/types/cache_spec.h"
#include "proto/types/checksum128.h"

namespace reprise::client {

struct CallerMemory {
  std::vector<uint8_t*> buffers;  // one per block, block_bytes each; or empty, and:
  std::shared_ptr<const kernels::PagedPlan> plan;
  std::vector<int64_t> pages;  // plan->PagesPerBlock() per block, in token order

  // Which GPU's memory it is.
  int device = kernels::kHostMemory;
  std::shared_ptr<const kernels::GpuPlan> gpu_plan;  // on a GPU: `plan` there (MakeDevicePlan)
  // On a GPU: what the caller gave to its own stream before (MarkStream); the memory is not touched
  // before it is done. nullptr: the memory is still.
  std::shared_ptr<const kernels::Event> after;

  // INVALID_ARGUMENT unless exactly one form is given, for at least `blocks` blocks of `layout`, of
  // the memory that `device` says, aligned as `codec` (nullptr: none) needs it; UNAVAILABLE without
  // that GPU.
  absl::Status Check(const BlockLayout& layout, uint32_t blocks,
                     const kernels::QuantShape* codec = nullptr) const;
  std::span<const int64_t> PagesOf(uint32_t block) const;
};

// A plan over an engine's tensors. INVALID_ARGUMENT naming what does not fit the layout.
absl::StatusOr<std::shared_ptr<const kernels::PagedPlan>> MakePagedPlan(
    const BlockLayout& layout, std::vector<kernels::PagedPlane> planes, uint32_t page_tokens);

// Copies a block and checksums the copy, layer by layer, while a layer is in the cache.
// REQUIRES: both have layout.block_bytes bytes and do not overlap.
Checksum128 CopyAndChecksum(const BlockLayout& layout, const uint8_t* from, uint8_t* to);
Checksum128 ChecksumOf(const BlockLayout& layout, std::span<const uint8_t> block);

// DATA_LOSS, reason BLOCK_CORRUPT, unless the two are equal. `block`: the caller's, for people.
absl::Status CheckChecksum(uint32_t block, const Checksum128& found, const Checksum128& expected);

// What sink and source share.
struct BlockTransfer {
  const CallerMemory* memory = nullptr;
  const BlockLayout* layout = nullptr;         // of a block at the shard
  const kernels::QuantShape* codec = nullptr;  // nullptr: the caller's blocks have that layout
  Staging* staging = nullptr;
  uint32_t first = 0;  // the caller's block that is block 0 of the lane's call
  absl::Time deadline;
};

// Staging for one block: as the shard has it, and under a codec as the engine has it, for paged
// memory, whose pages a codec cannot reach.
class StagedBlock {
 public:
  // Does nothing when it is there already.
  absl::Status Get(const BlockTransfer& transfer);
  bool there() const { return !buffer_.bytes().empty(); }
  std::span<uint8_t> stored() const { return buffer_.bytes().first(stored_bytes_); }
  // REQUIRES: a codec and paged memory.
  uint8_t* plain() const { return buffer_.bytes().data() + stored_bytes_; }

 private:
  StagingBuffer buffer_;
  uint64_t stored_bytes_ = 0;
};

// Puts blocks into the caller's memory. Status of a wrong checksum: DATA_LOSS, reason
// BLOCK_CORRUPT.
class VerifyingSink final : public lanes::BlockSink {
 public:
  // `checksums`: one per block of the call. `on_block(i)` is called for every block that is in
  // place and verified; its status ends the read.
  VerifyingSink(BlockTransfer transfer, std::span<const Checksum128> checksums,
                std::function<absl::Status(uint32_t)> on_block);

  // Gets the staging that paged memory and a codec need. REQUIRES: called before a lane has the
  // sink.
  absl::Status Prepare();

  std::span<uint8_t> Buffer(uint32_t i) override;
  absl::Status Complete(uint32_t i) override;
  absl::Status Deliver(uint32_t i, std::span<const uint8_t> bytes) override;

 private:
  absl::Status Verify(uint32_t i, const Checksum128& found) const {
    return CheckChecksum(transfer_.first + i, found, checksums_[i]);
  }

  // From a verified block of the shard's to where the caller wants it.
  void Place(uint32_t i, const uint8_t* stored);

  BlockTransfer transfer_;
  std::span<const Checksum128> checksums_;
  std::function<absl::Status(uint32_t)> on_block_;
  StagedBlock staged_;
};

// Takes blocks from the caller's memory.
class ChecksummingSource final : public lanes::BlockSource {
 public:
  // `blocks`: the caller's block for each block of the call. `check` is asked before each block and
  // may end the write.
  ChecksummingSource(BlockTransfer transfer, std::span<const uint32_t> blocks,
                     std::function<absl::Status()> check);

  absl::StatusOr<std::span<const uint8_t>> Bytes(uint32_t i) override;
  absl::Status Fill(uint32_t i, std::span<uint8_t> slot) override;

  // One per block that was taken.
  std::span<const Checksum128> checksums() const { return checksums_; }

 private:
  // Puts the caller's block together as the shard is to have it. REQUIRES: staged_ is there if
  // anything is to be staged.
  void Make(uint32_t i, uint8_t* stored);

  BlockTransfer transfer_;
  std::span<const uint32_t> blocks_;
  std::function<absl::Status()> check_;
  std::vector<Checksum128> checksums_;
  StagedBlock staged_;
};

}  // namespace reprise::client
