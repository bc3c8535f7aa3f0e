#include "client/cpp/device_source.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/runtime/memory.h"
#include "proto/types/limits.h"
#include "proto/types/status_macros.h"

namespace reprise::client {

DeviceSource::DeviceSource(const BlockTransfer& transfer, DeviceWorkspaces& workspaces,
                           std::span<const uint32_t> blocks, std::function<absl::Status()> check)
    : device_(transfer, workspaces), blocks_(blocks), check_(std::move(check)) {
  checksums_.reserve(blocks.size());
}

// ---- Host bytes

absl::Status DeviceSource::Begin(uint32_t window, uint32_t first) {
  Window& to = windows_[window];
  to = {};
  const auto count =
      std::min<uint32_t>(device_.group_blocks(), static_cast<uint32_t>(blocks_.size()) - first);
  DeviceWorkspace& workspace = device_.workspace();
  const uint64_t block_bytes = device_.layout().block_bytes;
  for (uint32_t k = 0; k < count; ++k) {
    device_.Tabulate(window, k, workspace.DeviceGroup(window) + k * block_bytes,
                     blocks_[first + k]);
  }
  REPRISE_RETURN_IF_ERROR(device_.Gather(window, count));
  REPRISE_RETURN_IF_ERROR(device_.Checksum(window, count));
  REPRISE_RETURN_IF_ERROR(kernels::CopyAsync(workspace.HostGroup(window),
                                             workspace.DeviceGroup(window), count * block_bytes,
                                             workspace.stream()));
  REPRISE_RETURN_IF_ERROR(workspace.GroupEvent(window).Record(workspace.stream()));
  to = {.first = first, .blocks = count, .there = false};
  return absl::OkStatus();
}

absl::StatusOr<std::span<const uint8_t>> DeviceSource::Bytes(uint32_t i) {
  REPRISE_RETURN_IF_ERROR(check_());
  if (!windows_[current_].Has(i) || !windows_[current_].there) {
    REPRISE_ASSIGN_OR_RETURN(const auto scope, device_.Enter());
    REPRISE_RETURN_IF_ERROR(device_.AwaitCaller());
    const uint32_t next = (current_ + 1) % kWindows;
    if (windows_[next].Has(i)) {
      current_ = next;
    } else {
      // The first block, or one that is asked for again by another lane.
      REPRISE_RETURN_IF_ERROR(device_.workspace().Synchronize());
      REPRISE_RETURN_IF_ERROR(device_.HaveStaging());
      REPRISE_RETURN_IF_ERROR(Begin(current_, i));
    }
    REPRISE_RETURN_IF_ERROR(device_.workspace().GroupEvent(current_).Synchronize());
    windows_[current_].there = true;
    const uint32_t after = windows_[current_].first + windows_[current_].blocks;
    if (after < blocks_.size()) {
      REPRISE_RETURN_IF_ERROR(Begin((current_ + 1) % kWindows, after));
    }
  }
  const uint32_t at = i - windows_[current_].first;
  // A lane may ask for a block again when it falls back to another lane.
  checksums_.resize(i);
  checksums_.push_back(device_.Digest(current_, at));
  return std::span<const uint8_t>(device_.HostSlot(current_, at), device_.layout().block_bytes);
}

absl::Status DeviceSource::Fill(uint32_t i, std::span<uint8_t> slot) {
  if (slot.size() != device_.layout().block_bytes) {
    return absl::InternalError(absl::StrCat("a lane has a slot of ", slot.size(),
                                            " bytes for a block of ",
                                            device_.layout().block_bytes));
  }
  REPRISE_ASSIGN_OR_RETURN(const std::span<const uint8_t> block, Bytes(i));
  std::memcpy(slot.data(), block.data(), block.size());
  return absl::OkStatus();
}

// ---- Device bytes

absl::Status DeviceSource::FillDevice(uint32_t first, std::span<const std::span<uint8_t>> slots) {
  while (!slots.empty()) {
    const size_t count = std::min<size_t>(device_.launch_blocks(), slots.size());
    REPRISE_RETURN_IF_ERROR(FillDirect(first, slots.first(count)));
    slots = slots.subspan(count);
    first += static_cast<uint32_t>(count);
  }
  return absl::OkStatus();
}

absl::Status DeviceSource::FillDirect(uint32_t first, std::span<const std::span<uint8_t>> slots) {
  constexpr uint32_t kRegion = DeviceWorkspace::kDirectRegion;
  REPRISE_RETURN_IF_ERROR(check_());
  const auto count = static_cast<uint32_t>(slots.size());
  REPRISE_ASSIGN_OR_RETURN(const auto scope, device_.Enter());
  for (uint32_t k = 0; k < count; ++k) {
    if (slots[k].size() != device_.layout().block_bytes ||
        reinterpret_cast<uintptr_t>(slots[k].data()) % limits::kRowAlignBytes != 0) {
      return absl::InternalError(absl::StrCat(
          "a lane has a slot of ", slots[k].size(), " bytes in device memory for a block of ",
          device_.layout().block_bytes, " aligned to ", limits::kRowAlignBytes));
    }
    device_.Tabulate(kRegion, k, slots[k].data(), blocks_[first + k]);
  }
  REPRISE_RETURN_IF_ERROR(device_.AwaitCaller());
  REPRISE_RETURN_IF_ERROR(device_.Gather(kRegion, count));
  REPRISE_RETURN_IF_ERROR(device_.Checksum(kRegion, count));
  REPRISE_RETURN_IF_ERROR(device_.workspace().Synchronize());
  checksums_.resize(first);
  for (uint32_t k = 0; k < count; ++k) checksums_.push_back(device_.Digest(kRegion, k));
  return absl::OkStatus();
}

}  // namespace reprise::client
