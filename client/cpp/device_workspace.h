// What one transfer from or to a GPU works with: a stream for its kernels and one for copies beside
// them, tables that the GPU reads, scratch for checksums, and staging in host and device memory for
// lanes that carry host bytes. Making one costs milliseconds, so they are pooled.
//
// Invariants: a workspace belongs to one transfer at a time and comes back with nothing under way
// on its streams; a GPU is touched only by a call that names it. Thread safety: a pool's methods
// may be called from any thread; a workspace is used by one thread at a time.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "kernels/block_copy/block_copy_cuda.h"
#include "kernels/quantize/quant_format.h"
#include "kernels/runtime/memory.h"
#include "kernels/runtime/stream.h"
#include "proto/types/limits.h"

namespace reprise::client {

// Tables of one launch, in pinned memory: entries per block.
struct LaunchTables {
  uint8_t** blocks = nullptr;  // addresses
  int64_t* pages = nullptr;    // pages_per_block each
  uint8_t* digests = nullptr;  // kChecksumDigestBytes each
};

class DeviceWorkspace {
 public:
  // Tables and staging are cut into regions: one for each group of blocks that is staged, and one
  // for blocks that are in device memory already.
  static constexpr uint32_t kDirectRegion = limits::kDeviceGroups;
  static constexpr uint32_t kRegions = limits::kDeviceGroups + 1;

  // UNAVAILABLE without the device, RESOURCE_EXHAUSTED without the memory.
  static absl::StatusOr<std::unique_ptr<DeviceWorkspace>> Create(int device);

  int device() const { return device_; }
  kernels::GpuStream stream() const { return stream_.handle(); }
  kernels::GpuStream copies() const { return copies_.handle(); }
  // Waits until nothing is under way.
  absl::Status Synchronize() const;
  // What is given to one stream from now on waits for what the other was given for a group until
  // now.
  absl::Status KernelsAwaitCopies(uint32_t group);
  absl::Status CopiesAwaitKernels(uint32_t group);
  uint8_t* scratch() const { return scratch_.data(); }

  // Blocks that one launch takes, at least 1: as many as a region of the tables and the scratch
  // hold.
  static uint32_t LaunchBlocks(uint32_t pages_per_block, uint64_t scratch_bytes_per_block);
  // Blocks in one staged group, at least 1.
  static uint32_t GroupBlocks(uint64_t block_bytes, uint32_t launch_blocks);
  LaunchTables Tables(uint32_t region, uint32_t blocks) const;

  // Has staging of kDeviceGroups groups of `group_bytes`. REQUIRES: nothing is under way.
  absl::Status HaveStaging(uint64_t group_bytes);
  uint8_t* HostGroup(uint32_t group) const { return host_->data() + group * group_bytes_; }
  uint8_t* DeviceGroup(uint32_t group) const { return staged_->data() + group * group_bytes_; }
  kernels::Event& GroupEvent(uint32_t group) { return events_[group]; }

 private:
  DeviceWorkspace(int device, kernels::Stream stream, kernels::Stream copies,
                  kernels::PinnedBuffer tables, kernels::DeviceBuffer scratch)
      : device_(device),
        stream_(std::move(stream)),
        copies_(std::move(copies)),
        tables_(std::move(tables)),
        scratch_(std::move(scratch)) {}

  const int device_;
  kernels::Stream stream_;
  kernels::Stream copies_;
  kernels::PinnedBuffer tables_;
  kernels::DeviceBuffer scratch_;
  std::vector<kernels::Event> events_;    // one per group: the caller's
  std::vector<kernels::Event> handover_;  // and between the streams
  uint64_t group_bytes_ = 0;
  std::optional<kernels::PinnedBuffer> host_;
  std::optional<kernels::DeviceBuffer> staged_;
};

class DeviceWorkspaces;

// A workspace on loan; goes back when this dies.
class WorkspaceLoan {
 public:
  WorkspaceLoan() = default;
  WorkspaceLoan(WorkspaceLoan&& other) noexcept = default;
  WorkspaceLoan& operator=(WorkspaceLoan&& other) noexcept;
  ~WorkspaceLoan();

  DeviceWorkspace* operator->() const { return workspace_.get(); }
  DeviceWorkspace& operator*() const { return *workspace_; }
  explicit operator bool() const { return workspace_ != nullptr; }
  // Gives it back. `broken`: it is not used again. REQUIRES: nothing is under way.
  void Return(bool broken);

 private:
  friend class DeviceWorkspaces;
  WorkspaceLoan(DeviceWorkspaces* owner, std::unique_ptr<DeviceWorkspace> workspace)
      : owner_(owner), workspace_(std::move(workspace)) {}
  DeviceWorkspaces* owner_ = nullptr;
  std::unique_ptr<DeviceWorkspace> workspace_;
};

class DeviceWorkspaces {
 public:
  // `threads`: of the client, each of which has one transfer under way at a time.
  explicit DeviceWorkspaces(size_t threads);
  DeviceWorkspaces(const DeviceWorkspaces&) = delete;
  DeviceWorkspaces& operator=(const DeviceWorkspaces&) = delete;

  // DEADLINE_EXCEEDED when none comes free by then, else as DeviceWorkspace::Create.
  absl::StatusOr<WorkspaceLoan> Get(int device, absl::Time deadline);

  // The plan of blocks that lie in one piece each, at any address that is a multiple of
  // kRowAlignBytes: such a block is one page, PageOfWholeBlock(address). Without a codec (nullptr)
  // it is one row of `block_bytes`; a codec has to know its rows.
  absl::StatusOr<std::shared_ptr<const kernels::GpuPlan>> WholeBlocksPlan(
      int device, uint64_t block_bytes, const kernels::QuantShape* codec);
  static int64_t PageOfWholeBlock(const uint8_t* address);

 private:
  friend class WorkspaceLoan;
  struct Pool {
    std::vector<std::unique_ptr<DeviceWorkspace>> free;
    size_t lent = 0;
    size_t lent_max = 0;
    bool MayLend() const { return lent < lent_max; }
  };
  void Put(int device, std::unique_ptr<DeviceWorkspace> workspace);

  const size_t lent_max_;
  absl::Mutex mu_;
  std::map<int, std::unique_ptr<Pool>> pools_ ABSL_GUARDED_BY(mu_);  // by device
  // By device, bytes of a block, planes, planes per layer, heads, tokens and bytes of a row.
  using PlanKey = std::array<uint64_t, 7>;
  std::map<PlanKey, std::shared_ptr<const kernels::GpuPlan>> plans_ ABSL_GUARDED_BY(mu_);
};

}  // namespace reprise::client
