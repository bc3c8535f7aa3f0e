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
  REPRISE_RETURN_IF_ERROR(Collect(window, first, count));
  DeviceWorkspace& workspace = device_.workspace();
  REPRISE_RETURN_IF_ERROR(
      kernels::CopyAsync(workspace.HostGroup(window), workspace.DeviceGroup(window),
                         count * device_.layout().block_bytes, workspace.stream()));
  REPRISE_RETURN_IF_ERROR(workspace.GroupEvent(window).Record(workspace.stream()));
  to = {.first = first, .blocks = count, .there = false};
  return absl::OkStatus();
}

absl::Status DeviceSource::Collect(uint32_t group, uint32_t first, uint32_t count) {
  for (uint32_t k = 0; k < count; ++k) {
    device_.Tabulate(group, k, device_.DeviceSlot(group, k), blocks_[first + k]);
  }
  REPRISE_RETURN_IF_ERROR(device_.Gather(group, count));
  return device_.Checksum(group, count);
}

void DeviceSource::Note(uint32_t i, const Checksum128& checksum) {
  // A lane may ask for a block again when it falls back to another lane.
  checksums_.resize(i);
  checksums_.push_back(checksum);
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
  Note(i, device_.Digest(current_, at));
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
  for (const auto& slot : slots) REPRISE_RETURN_IF_ERROR(device_.CheckBlock(slot));
  const auto count = static_cast<uint32_t>(slots.size());
  REPRISE_ASSIGN_OR_RETURN(const auto scope, device_.Enter());
  for (uint32_t k = 0; k < count; ++k) {
    device_.Tabulate(kRegion, k, slots[k].data(), blocks_[first + k]);
  }
  REPRISE_RETURN_IF_ERROR(device_.AwaitCaller());
  absl::Status status = device_.Gather(kRegion, count);
  if (status.ok()) status = device_.Checksum(kRegion, count);
  // Also after an error: the slots are the lane's again when this returns.
  status.Update(device_.workspace().Synchronize());
  for (uint32_t k = 0; status.ok() && k < count; ++k) Note(first + k, device_.Digest(kRegion, k));
  return status;
}

// ---- Pinned host bytes

absl::Status DeviceSource::FillPinned(uint32_t first, std::span<const std::span<uint8_t>> slots) {
  for (const auto& slot : slots) REPRISE_RETURN_IF_ERROR(device_.CheckBlock(slot));
  REPRISE_ASSIGN_OR_RETURN(const auto scope, device_.Enter());
  REPRISE_RETURN_IF_ERROR(device_.AwaitCaller());
  // What was gathered for a lane of host bytes gives way.
  REPRISE_RETURN_IF_ERROR(device_.workspace().Synchronize());
  windows_ = {};
  REPRISE_RETURN_IF_ERROR(device_.HaveStaging());
  absl::Status status = SendAllDown(first, slots);
  status.Update(device_.workspace().Synchronize());
  return status;
}

absl::Status DeviceSource::SendAllDown(uint32_t first, std::span<const std::span<uint8_t>> slots) {
  const auto count = static_cast<uint32_t>(slots.size());
  const uint32_t step = device_.group_blocks();
  const uint32_t groups = (count + step - 1) / step;
  const auto size_of = [&](uint32_t n) { return std::min(step, count - n * step); };
  // Every group of staging but one is on its way while the next one is filled.
  for (uint32_t n = 0; n < groups + limits::kDeviceGroups; ++n) {
    const uint32_t group = n % limits::kDeviceGroups;
    if (n >= limits::kDeviceGroups && n - limits::kDeviceGroups < groups) {
      const uint32_t done = n - limits::kDeviceGroups;
      REPRISE_RETURN_IF_ERROR(device_.workspace().GroupEvent(group).Synchronize());
      for (uint32_t k = 0; k < size_of(done); ++k) {
        Note(first + done * step + k, device_.Digest(group, k));
      }
    }
    if (n < groups) {
      REPRISE_RETURN_IF_ERROR(check_());
      REPRISE_RETURN_IF_ERROR(
          SendDown(group, first + n * step, slots.subspan(n * step, size_of(n))));
    }
  }
  return absl::OkStatus();
}

absl::Status DeviceSource::SendDown(uint32_t group, uint32_t first,
                                    std::span<const std::span<uint8_t>> slots) {
  REPRISE_RETURN_IF_ERROR(Collect(group, first, static_cast<uint32_t>(slots.size())));
  DeviceWorkspace& workspace = device_.workspace();
  REPRISE_RETURN_IF_ERROR(workspace.CopiesAwaitKernels(group));
  REPRISE_RETURN_IF_ERROR(device_.CopyDown(group, slots));
  return workspace.GroupEvent(group).Record(workspace.copies());
}

}  // namespace reprise::client
