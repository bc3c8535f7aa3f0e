#include "client/cpp/device_sink.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/runtime/memory.h"
#include "proto/types/limits.h"
#include "proto/types/status_macros.h"

namespace reprise::client {

DeviceSink::DeviceSink(const BlockTransfer& transfer, DeviceWorkspaces& workspaces,
                       std::span<const Checksum128> checksums, Callbacks callbacks,
                       const Clock& clock)
    : transfer_(transfer),
      device_(transfer, workspaces),
      checksums_(checksums),
      callbacks_(std::move(callbacks)),
      clock_(clock),
      begun_(clock.Now()) {}

absl::Status DeviceSink::Prepare() {
  return Failed(device_.Prepare());
}

absl::Status DeviceSink::Failed(absl::Status status) {
  if (failure_.ok()) failure_ = std::move(status);
  return failure_;
}

// ---- Host bytes

std::span<uint8_t> DeviceSink::Buffer(uint32_t) {
  if (!Failed(HaveRoom()).ok()) {
    nowhere_.resize(device_.layout().block_bytes);
    return nowhere_;
  }
  return {device_.HostSlot(filling_, groups_[filling_].blocks), device_.layout().block_bytes};
}

absl::Status DeviceSink::Complete(uint32_t i) {
  REPRISE_RETURN_IF_ERROR(failure_);
  const std::span<const uint8_t> block(device_.HostSlot(filling_, groups_[filling_].blocks),
                                       device_.layout().block_bytes);
  return Staged(i, ChecksumOf(device_.layout(), block));
}

absl::Status DeviceSink::Deliver(uint32_t i, std::span<const uint8_t> bytes) {
  if (bytes.size() != device_.layout().block_bytes) {
    return absl::InternalError(absl::StrCat("a lane delivered a block of ", bytes.size(),
                                            " bytes instead of ", device_.layout().block_bytes));
  }
  REPRISE_RETURN_IF_ERROR(Failed(HaveRoom()));
  uint8_t* slot = device_.HostSlot(filling_, groups_[filling_].blocks);
  return Staged(i, CopyAndChecksum(device_.layout(), bytes.data(), slot));
}

absl::Status DeviceSink::HaveRoom() {
  REPRISE_RETURN_IF_ERROR(failure_);
  Group& group = groups_[filling_];
  if (group.blocks > 0 && !group.under_way) return absl::OkStatus();
  REPRISE_ASSIGN_OR_RETURN(const auto scope, device_.Enter());
  if (!group.under_way) return device_.HaveStaging();
  // The oldest of all that are under way.
  REPRISE_RETURN_IF_ERROR(device_.workspace().GroupEvent(filling_).Synchronize());
  Placed(group);
  return absl::OkStatus();
}

// Block i is in the next slot of the group that is being filled.
absl::Status DeviceSink::Staged(uint32_t i, const Checksum128& found) {
  REPRISE_RETURN_IF_ERROR(Verify(i, found));
  Group& group = groups_[filling_];
  if (group.blocks == 0) group.first = i;
  device_.Tabulate(filling_, group.blocks, device_.DeviceSlot(filling_, group.blocks),
                   transfer_.first + i);
  ++group.blocks;
  const absl::Status verified = callbacks_.verified(i);
  if (group.blocks == device_.group_blocks()) REPRISE_RETURN_IF_ERROR(Failed(Send()));
  return verified;
}

absl::Status DeviceSink::Send() {
  Group& group = groups_[filling_];
  if (group.blocks == 0 || group.under_way) return absl::OkStatus();
  REPRISE_ASSIGN_OR_RETURN(const auto scope, device_.Enter());
  REPRISE_RETURN_IF_ERROR(device_.AwaitCaller());
  DeviceWorkspace& workspace = device_.workspace();
  REPRISE_RETURN_IF_ERROR(
      kernels::CopyAsync(workspace.DeviceGroup(filling_), workspace.HostGroup(filling_),
                         group.blocks * device_.layout().block_bytes, workspace.stream()));
  REPRISE_RETURN_IF_ERROR(device_.Scatter(filling_, group.blocks));
  REPRISE_RETURN_IF_ERROR(workspace.GroupEvent(filling_).Record(workspace.stream()));
  group.under_way = true;
  filling_ = (filling_ + 1) % limits::kDeviceGroups;
  return absl::OkStatus();
}

absl::Status DeviceSink::Settle() {
  REPRISE_ASSIGN_OR_RETURN(const auto scope, device_.Enter());
  REPRISE_RETURN_IF_ERROR(device_.workspace().Synchronize());
  // In the order in which they were sent: the next one to fill is the oldest.
  for (uint32_t k = 0; k < limits::kDeviceGroups; ++k) {
    Group& group = groups_[(filling_ + k) % limits::kDeviceGroups];
    if (group.under_way) Placed(group);
  }
  return absl::OkStatus();
}

void DeviceSink::Placed(Group& group) {
  for (uint32_t k = 0; k < group.blocks; ++k) callbacks_.placed(group.first + k);
  group = {};
}

// ---- Device bytes

absl::Status DeviceSink::DeliverDevice(uint32_t first,
                                       std::span<const std::span<const uint8_t>> blocks) {
  while (!blocks.empty()) {
    const size_t count = std::min<size_t>(device_.launch_blocks(), blocks.size());
    REPRISE_RETURN_IF_ERROR(PlaceDirect(first, blocks.first(count)));
    blocks = blocks.subspan(count);
    first += static_cast<uint32_t>(count);
  }
  return absl::OkStatus();
}

uint32_t DeviceSink::Good(uint32_t region, uint32_t first, uint32_t count) const {
  uint32_t good = 0;
  while (good < count && device_.Digest(region, good) == checksums_[first + good]) ++good;
  return good;
}

absl::Status DeviceSink::PlaceDirect(uint32_t first,
                                     std::span<const std::span<const uint8_t>> blocks) {
  constexpr uint32_t kRegion = DeviceWorkspace::kDirectRegion;
  const auto count = static_cast<uint32_t>(blocks.size());
  for (const auto& block : blocks) REPRISE_RETURN_IF_ERROR(device_.CheckBlock(block));
  REPRISE_RETURN_IF_ERROR(Failed(Send()));
  REPRISE_ASSIGN_OR_RETURN(const auto scope, device_.Enter());
  // Before the blocks are looked at, not between that and their use: it may take long.
  REPRISE_RETURN_IF_ERROR(Failed(device_.AwaitCaller()));
  for (uint32_t k = 0; k < count; ++k) {
    // The kernels that read a block take it by the same table as those that write one.
    device_.Tabulate(kRegion, k, const_cast<uint8_t*>(blocks[k].data()),
                     transfer_.first + first + k);
  }
  REPRISE_RETURN_IF_ERROR(Failed(device_.Checksum(kRegion, count)));
  REPRISE_RETURN_IF_ERROR(Failed(Settle()));
  const uint32_t good = Good(kRegion, first, count);
  const absl::Status bad =
      good < count ? Verify(first + good, device_.Digest(kRegion, good)) : absl::OkStatus();
  if (good > 0) {
    REPRISE_RETURN_IF_ERROR(Failed(device_.Scatter(kRegion, good)));
    REPRISE_RETURN_IF_ERROR(Failed(device_.workspace().Synchronize()));
    REPRISE_RETURN_IF_ERROR(CheckOnceMore(first, good));
  }
  absl::Status ended;
  for (uint32_t k = 0; k < good; ++k) {
    const absl::Status verified = callbacks_.verified(first + k);
    if (ended.ok()) ended = verified;
    callbacks_.placed(first + k);
  }
  return bad.ok() ? ended : bad;
}

// A process that stood still for long enough, between the checksum and the scatter, has scattered
// what the shard has put there since.
absl::Status DeviceSink::CheckOnceMore(uint32_t first, uint32_t count) {
  constexpr uint32_t kRegion = DeviceWorkspace::kDirectRegion;
  if (clock_.Now() - begun_ < limits::kViewOpeningAgeMax / 2) return absl::OkStatus();
  REPRISE_RETURN_IF_ERROR(Failed(device_.Checksum(kRegion, count)));
  REPRISE_RETURN_IF_ERROR(Failed(device_.workspace().Synchronize()));
  if (Good(kRegion, first, count) == count) return absl::OkStatus();
  return absl::DeadlineExceededError("blocks changed while they were read: this took too long");
}

// ---- Pinned host bytes

absl::Status DeviceSink::DeliverPinned(uint32_t first,
                                       std::span<const std::span<const uint8_t>> blocks) {
  for (const auto& block : blocks) REPRISE_RETURN_IF_ERROR(device_.CheckBlock(block));
  REPRISE_RETURN_IF_ERROR(Failed(Send()));
  REPRISE_RETURN_IF_ERROR(Failed(HaveRoom()));
  REPRISE_ASSIGN_OR_RETURN(const auto scope, device_.Enter());
  REPRISE_RETURN_IF_ERROR(Failed(device_.AwaitCaller()));
  absl::Status status;
  std::optional<uint32_t> fetched;  // and not placed yet
  while (status.ok() && (fetched.has_value() || !blocks.empty())) {
    std::optional<uint32_t> fetching;
    if (!blocks.empty()) {
      const size_t count = std::min<size_t>(device_.group_blocks(), blocks.size());
      fetching = filling_;
      status = Failed(Fetch(first, blocks.first(count)));
      first += static_cast<uint32_t>(count);
      blocks = blocks.subspan(count);
    }
    if (status.ok() && fetched.has_value()) status = PlaceFetched(*fetched);
    fetched = fetching;
  }
  const absl::Status settled = Failed(Settle());
  groups_ = {};  // what was fetched and not placed
  return settled.ok() ? status : settled;
}

absl::Status DeviceSink::Fetch(uint32_t first, std::span<const std::span<const uint8_t>> blocks) {
  REPRISE_RETURN_IF_ERROR(HaveRoom());
  const uint32_t index = std::exchange(filling_, (filling_ + 1) % limits::kDeviceGroups);
  const auto count = static_cast<uint32_t>(blocks.size());
  groups_[index] = {.first = first, .blocks = count};
  for (uint32_t k = 0; k < count; ++k) {
    device_.Tabulate(index, k, device_.DeviceSlot(index, k), transfer_.first + first + k);
  }
  DeviceWorkspace& workspace = device_.workspace();
  REPRISE_RETURN_IF_ERROR(device_.CopyUp(index, blocks));
  REPRISE_RETURN_IF_ERROR(workspace.KernelsAwaitCopies(index));
  REPRISE_RETURN_IF_ERROR(device_.Checksum(index, count));
  return workspace.GroupEvent(index).Record(workspace.stream());
}

absl::Status DeviceSink::PlaceFetched(uint32_t index) {
  DeviceWorkspace& workspace = device_.workspace();
  REPRISE_RETURN_IF_ERROR(Failed(workspace.GroupEvent(index).Synchronize()));
  Group& group = groups_[index];
  const uint32_t fetched = std::exchange(group.blocks, Good(index, group.first, group.blocks));
  absl::Status ended = group.blocks < fetched
                           ? Verify(group.first + group.blocks, device_.Digest(index, group.blocks))
                           : absl::OkStatus();
  if (group.blocks == 0) return ended;
  REPRISE_RETURN_IF_ERROR(Failed(device_.Scatter(index, group.blocks)));
  REPRISE_RETURN_IF_ERROR(Failed(workspace.GroupEvent(index).Record(workspace.stream())));
  group.under_way = true;
  for (uint32_t k = 0; k < group.blocks; ++k) {
    const absl::Status verified = callbacks_.verified(group.first + k);
    if (ended.ok()) ended = verified;
  }
  return ended;
}

// ---- The end

absl::Status DeviceSink::Finish() {
  if (failure_.ok()) failure_ = Send();
  if (failure_.ok()) failure_ = Settle();
  return Failed(device_.Finish());
}

}  // namespace reprise::client
