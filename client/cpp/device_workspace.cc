#include "client/cpp/device_workspace.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/checksum/checksum.h"
#include "kernels/runtime/device.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::client {
namespace {

constexpr uint64_t kRegionBytes = limits::kDeviceTableBytes / DeviceWorkspace::kRegions;

constexpr uint64_t TableBytesPerBlock(uint64_t pages_per_block) {
  return sizeof(uint8_t*)                     // the block's address
         + pages_per_block * sizeof(int64_t)  // its pages
         + kernels::kChecksumDigestBytes      // its checksum
      ;
}

// Every block that a spec allows has room.
static_assert(TableBytesPerBlock(limits::kBlockTokensMax) <= kRegionBytes);

// Where whole blocks' pages count from: a plan's base is not null.
constexpr uint64_t kWholeBlocksBase = limits::kRowAlignBytes;

kernels::PagedPlane WholeBlocksPlane(uint64_t at, uint64_t head_bytes, uint64_t row_bytes) {
  return {.base = reinterpret_cast<uint8_t*>(kWholeBlocksBase + at),
          .page_stride_bytes = limits::kRowAlignBytes,
          .head_stride_bytes = static_cast<int64_t>(head_bytes),
          .token_stride_bytes = static_cast<int64_t>(row_bytes)};
}

// A block as one long row.
kernels::PagedPlan OneRow(uint64_t block_bytes) {
  kernels::PagedPlan plan;
  plan.planes = {WholeBlocksPlane(0, 0, 0)};
  plan.planes_per_layer = plan.heads = plan.page_tokens = plan.block_tokens = 1;
  plan.row_data_bytes = plan.row_bytes = static_cast<uint32_t>(block_bytes);
  plan.block_bytes = block_bytes;
  return plan;
}

// A block in the canonical layout.
kernels::PagedPlan AllRows(const kernels::QuantShape& shape) {
  const kernels::QuantLayout layout = kernels::LayoutOf(shape);
  const uint64_t head_bytes = shape.tokens * layout.row_bytes;
  kernels::PagedPlan plan;
  for (uint32_t i = 0; i < shape.layers * shape.planes_per_layer; ++i) {
    plan.planes.push_back(
        WholeBlocksPlane(i * shape.heads * head_bytes, head_bytes, layout.row_bytes));
  }
  plan.planes_per_layer = shape.planes_per_layer;
  plan.heads = shape.heads;
  plan.page_tokens = plan.block_tokens = shape.tokens;
  plan.row_data_bytes = static_cast<uint32_t>(shape.channels * layout.element_bytes);
  plan.row_bytes = static_cast<uint32_t>(layout.row_bytes);
  plan.block_bytes = layout.plain_block_bytes;
  return plan;
}

}  // namespace

// ---- One workspace

absl::StatusOr<std::unique_ptr<DeviceWorkspace>> DeviceWorkspace::Create(int device) {
  REPRISE_ASSIGN_OR_RETURN(const auto scope, kernels::DeviceScope::Create(device));
  REPRISE_ASSIGN_OR_RETURN(auto stream, kernels::Stream::Create(device));
  REPRISE_ASSIGN_OR_RETURN(auto copies, kernels::Stream::Create(device));
  REPRISE_ASSIGN_OR_RETURN(auto tables, kernels::PinnedBuffer::Create(limits::kDeviceTableBytes));
  REPRISE_ASSIGN_OR_RETURN(auto scratch,
                           kernels::DeviceBuffer::Create(device, limits::kDeviceScratchBytes));
  std::unique_ptr<DeviceWorkspace> workspace(new DeviceWorkspace(
      device, std::move(stream), std::move(copies), std::move(tables), std::move(scratch)));
  for (uint32_t i = 0; i < limits::kDeviceGroups; ++i) {
    for (auto* events : {&workspace->events_, &workspace->handover_}) {
      REPRISE_ASSIGN_OR_RETURN(auto event, kernels::Event::Create());
      events->push_back(std::move(event));
    }
  }
  return workspace;
}

absl::Status DeviceWorkspace::Synchronize() const {
  const absl::Status copied = copies_.Synchronize();
  REPRISE_RETURN_IF_ERROR(stream_.Synchronize());
  return copied;
}

absl::Status DeviceWorkspace::KernelsAwaitCopies(uint32_t group) {
  REPRISE_RETURN_IF_ERROR(handover_[group].Record(copies()));
  return stream_.WaitFor(handover_[group]);
}

absl::Status DeviceWorkspace::CopiesAwaitKernels(uint32_t group) {
  REPRISE_RETURN_IF_ERROR(handover_[group].Record(stream()));
  return copies_.WaitFor(handover_[group]);
}

uint32_t DeviceWorkspace::LaunchBlocks(uint32_t pages_per_block, uint64_t scratch_bytes_per_block) {
  const uint64_t by_tables = kRegionBytes / TableBytesPerBlock(pages_per_block);
  const uint64_t by_scratch = limits::kDeviceScratchBytes / scratch_bytes_per_block;
  return static_cast<uint32_t>(std::max<uint64_t>(1, std::min(by_tables, by_scratch)));
}

uint32_t DeviceWorkspace::GroupBlocks(uint64_t block_bytes, uint32_t launch_blocks) {
  const uint64_t by_bytes = limits::kDeviceGroupBytes / block_bytes;
  return static_cast<uint32_t>(std::max<uint64_t>(1, std::min<uint64_t>(by_bytes, launch_blocks)));
}

LaunchTables DeviceWorkspace::Tables(uint32_t region, uint32_t blocks) const {
  uint8_t* at = tables_.data() + region * kRegionBytes;
  LaunchTables tables;
  tables.digests = at;
  at += uint64_t{blocks} * kernels::kChecksumDigestBytes;
  tables.blocks = reinterpret_cast<uint8_t**>(at);
  at += uint64_t{blocks} * sizeof(uint8_t*);
  tables.pages = reinterpret_cast<int64_t*>(at);
  return tables;
}

absl::Status DeviceWorkspace::HaveStaging(uint64_t group_bytes) {
  if (group_bytes_ >= group_bytes) return absl::OkStatus();
  group_bytes_ = 0;
  host_.reset();
  staged_.reset();
  const uint64_t bytes = limits::kDeviceGroups * group_bytes;
  REPRISE_ASSIGN_OR_RETURN(auto host, kernels::PinnedBuffer::Create(bytes));
  REPRISE_ASSIGN_OR_RETURN(auto staged, kernels::DeviceBuffer::Create(device_, bytes));
  host_.emplace(std::move(host));
  staged_.emplace(std::move(staged));
  group_bytes_ = group_bytes;
  return absl::OkStatus();
}

// ---- The pool

WorkspaceLoan& WorkspaceLoan::operator=(WorkspaceLoan&& other) noexcept {
  std::swap(owner_, other.owner_);
  std::swap(workspace_, other.workspace_);
  return *this;
}

WorkspaceLoan::~WorkspaceLoan() {
  if (workspace_ != nullptr) Return(/*broken=*/false);
}

void WorkspaceLoan::Return(bool broken) {
  const int device = workspace_->device();
  if (broken) workspace_.reset();
  owner_->Put(device, std::move(workspace_));
  workspace_.reset();
}

DeviceWorkspaces::DeviceWorkspaces(size_t threads)
    : lent_max_(threads                           // one transfer in each thread of the client
                + limits::kBlockingCallersStaged  // and in each that calls blocking forms
      ) {}

absl::StatusOr<WorkspaceLoan> DeviceWorkspaces::Get(int device, absl::Time deadline) {
  {
    absl::MutexLock lock(&mu_);
    std::unique_ptr<Pool>& pool = pools_[device];
    if (pool == nullptr) {
      pool = std::make_unique<Pool>();
      pool->lent_max = lent_max_;
    }
    Pool* from = pool.get();  // pools stay where they are
    if (!mu_.AwaitWithDeadline(absl::Condition(from, &Pool::MayLend), deadline)) {
      return absl::DeadlineExceededError(absl::StrCat("every transfer with GPU ", device,
                                                      " that this client may have is under way"));
    }
    ++from->lent;
    if (!from->free.empty()) {
      WorkspaceLoan loan(this, std::move(from->free.back()));
      from->free.pop_back();
      return loan;
    }
  }
  absl::StatusOr<std::unique_ptr<DeviceWorkspace>> made = DeviceWorkspace::Create(device);
  if (made.ok()) return WorkspaceLoan(this, *std::move(made));
  Put(device, nullptr);
  return made.status();
}

void DeviceWorkspaces::Put(int device, std::unique_ptr<DeviceWorkspace> workspace) {
  absl::MutexLock lock(&mu_);
  Pool& pool = *pools_[device];
  --pool.lent;
  if (workspace != nullptr) pool.free.push_back(std::move(workspace));
}

absl::StatusOr<std::shared_ptr<const kernels::GpuPlan>> DeviceWorkspaces::WholeBlocksPlan(
    int device, uint64_t block_bytes, const kernels::QuantShape* codec) {
  const kernels::PagedPlan plan = codec == nullptr ? OneRow(block_bytes) : AllRows(*codec);
  const PlanKey key = {static_cast<uint64_t>(device),
                       plan.block_bytes,
                       plan.planes.size(),
                       plan.planes_per_layer,
                       plan.heads,
                       plan.block_tokens,
                       plan.row_data_bytes};
  {
    absl::MutexLock lock(&mu_);
    const auto known = plans_.find(key);
    if (known != plans_.end()) return known->second;
  }
  REPRISE_ASSIGN_OR_RETURN(kernels::GpuPlan uploaded, kernels::GpuPlan::Create(device, plan));
  auto made = std::make_shared<const kernels::GpuPlan>(std::move(uploaded));
  absl::MutexLock lock(&mu_);
  return plans_.try_emplace(key, std::move(made)).first->second;
}

int64_t DeviceWorkspaces::PageOfWholeBlock(const uint8_t* address) {
  return static_cast<int64_t>((reinterpret_cast<uintptr_t>(address) - kWholeBlocksBase) /
                              limits::kRowAlignBytes);
}

}  // namespace reprise::client
