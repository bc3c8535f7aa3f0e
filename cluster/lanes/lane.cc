#include "cluster/lanes/lane.h"

#include "proto/types/status_macros.h"

namespace reprise::lanes {

absl::Status LaneHost::CopyToHost(std::span<const uint8_t>, std::span<uint8_t>) {
  return absl::InternalError("this host has no device memory to copy from");
}

absl::Status LaneHost::CopyToDevice(std::span<const uint8_t>, std::span<uint8_t>) {
  return absl::InternalError("this host has no device memory to copy to");
}

absl::Status BlockSink::DeliverDevice(uint32_t, std::span<const std::span<const uint8_t>>) {
  return absl::InternalError("a lane handed device memory to a sink in host memory");
}

absl::Status BlockSink::DeliverPinned(uint32_t first,
                                      std::span<const std::span<const uint8_t>> blocks) {
  for (const std::span<const uint8_t>& block : blocks) {
    REPRISE_RETURN_IF_ERROR(Deliver(first++, block));
  }
  return absl::OkStatus();
}

absl::Status BlockSource::FillDevice(uint32_t, std::span<const std::span<uint8_t>>) {
  return absl::InternalError("a lane asked a source in host memory to fill device memory");
}

absl::Status BlockSource::FillPinned(uint32_t first, std::span<const std::span<uint8_t>> slots) {
  for (const std::span<uint8_t>& slot : slots) REPRISE_RETURN_IF_ERROR(Fill(first++, slot));
  return absl::OkStatus();
}

std::vector<PinnedBytes> BlockSource::Pinned(uint32_t, uint32_t) {
  return {};
}

}  // namespace reprise::lanes
