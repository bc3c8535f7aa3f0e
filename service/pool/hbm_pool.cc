#include "service/pool/hbm_pool.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "service/pool/dram_pool.h"

namespace reprise::shard {
namespace {

// A driver rounds allocations up to this, and IPC hands out whole ones.
constexpr uint64_t kDevicePageBytes = 2ull << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<HbmPool>> HbmPool::Create(std::unique_ptr<HbmDevice> device,
                                                         uint64_t capacity_bytes) {
  if (capacity_bytes == 0) {
    return Refusal(
        absl::StatusCode::kInvalidArgument, "HBM_SIZE",
        "hbm_bytes = 0: give the shard device memory, e.g. --hbm 8GiB, or leave --hbm out");
  }
  const uint64_t extent_bytes =
      (ExtentBytesFor(capacity_bytes) + kDevicePageBytes - 1) / kDevicePageBytes * kDevicePageBytes;
  const uint64_t count = std::max<uint64_t>(2, capacity_bytes / extent_bytes);
  std::vector<uint8_t*> extents;
  for (uint64_t i = 0; i < count; ++i) {
    absl::StatusOr<uint8_t*> extent = device->Allocate(extent_bytes);
    if (!extent.ok()) {
      for (uint8_t* made : extents) device->Free(made);
      return Refusal(extent.status().code(), RefusalReason(extent.status()),
                     absl::StrCat("hbm extent ", i, " of ", count, ": ", extent.status().message(),
                                  ": start with a smaller --hbm"));
    }
    extents.push_back(*extent);
  }
  return std::unique_ptr<HbmPool>(new HbmPool(std::move(device), std::move(extents), extent_bytes));
}

HbmPool::HbmPool(std::unique_ptr<HbmDevice> device, std::vector<uint8_t*> extents,
                 uint64_t extent_bytes)
    : Pool(static_cast<uint32_t>(extents.size()), extent_bytes),
      device_(std::move(device)),
      memory_(std::move(extents)) {}

HbmPool::~HbmPool() {
  for (uint8_t* extent : memory_) device_->Free(extent);
}

absl::StatusOr<HbmHandle> HbmPool::Share(uint32_t extent, AttachmentId attachment) {
  REPRISE_CHECK(extent < memory_.size());
  absl::StatusOr<HbmHandle> handle = device_->Export(memory_[extent]);
  if (!handle.ok()) return AsShards(handle.status());
  absl::MutexLock lock(&shared_mu_);
  shared_[attachment].insert(extent);
  return handle;
}

void HbmPool::Unshared(AttachmentId attachment) {
  absl::MutexLock lock(&shared_mu_);
  shared_.erase(attachment);
}

bool HbmPool::Transferable(uint32_t extent) const {
  absl::MutexLock lock(&shared_mu_);
  return std::none_of(shared_.begin(), shared_.end(),
                      [extent](const auto& shared) { return shared.second.contains(extent); });
}

absl::Status HbmPool::Wipe(uint32_t extent) {
  return AsShards(device_->Zero(memory_[extent], extent_bytes()));
}

absl::Status HbmPool::Renew(uint32_t extent) {
  if (Transferable(extent)) return Wipe(extent);
  return absl::UnavailableError(
      absl::StrCat("hbm extent ", extent, " may still be mapped by another process"));
}

absl::Status HbmPool::CopyBytes(const uint8_t* from, uint8_t* to, uint64_t bytes) {
  return AsShards(device_->Copy(to, from, bytes));
}

absl::Status HbmPool::ChecksumBytes(std::span<const uint8_t* const> blocks, const BlockShape& shape,
                                    std::span<Checksum128> checksums) const {
  return AsShards(device_->Checksums(blocks, shape, checksums));
}

absl::Status HbmPool::AsShards(const absl::Status& status) const {
  const std::string reason = RefusalReason(status);
  if (!absl::StartsWith(reason, "GPU_")) return status;
  if (reason == "GPU_LOST" || reason == "GPU_ABSENT") lost_.store(true, std::memory_order_relaxed);
  return Refusal(absl::StatusCode::kInternal, absl::StrCat("SHARD_", reason),
                 absl::StrCat("the shard's GPU: ", status.message()));
}

}  // namespace reprise::shard
