#include "service/shard/counted_host.h"

#include "absl/strings/str_cat.h"
#include "proto/types/status_macros.h"

namespace reprise::shard {

std::vector<std::pair<std::string, uint64_t>> LaneUse::Named(LaneKind lane) const {
  const std::string prefix = absl::StrCat("lane_", LaneKindName(lane), "_");
  return {{prefix + "blocks_read_total", blocks_read},
          {prefix + "bytes_read_total", bytes_read},
          {prefix + "blocks_written_total", blocks_written},
          {prefix + "bytes_written_total", bytes_written}};
}

absl::StatusOr<std::vector<lanes::PinnedBytes>> CountedHost::OpenRead(AttachmentId attachment,
                                                                      LeaseId lease, uint32_t first,
                                                                      uint32_t blocks) {
  REPRISE_ASSIGN_OR_RETURN(std::vector<lanes::PinnedBytes> opened,
                           host_.OpenRead(attachment, lease, first, blocks));
  uint64_t bytes = 0;
  for (const lanes::PinnedBytes& block : opened) bytes += block.bytes.size();
  blocks_read_.fetch_add(opened.size(), std::memory_order_relaxed);
  bytes_read_.fetch_add(bytes, std::memory_order_relaxed);
  return opened;
}

absl::StatusOr<lanes::PinnedSlot> CountedHost::OpenWrite(AttachmentId attachment,
                                                         ReservationId reservation,
                                                         uint32_t block) {
  REPRISE_ASSIGN_OR_RETURN(lanes::PinnedSlot slot, host_.OpenWrite(attachment, reservation, block));
  blocks_written_.fetch_add(1, std::memory_order_relaxed);
  bytes_written_.fetch_add(slot.bytes.size(), std::memory_order_relaxed);
  return slot;
}

absl::Status CountedHost::Written(AttachmentId attachment, ReservationId reservation,
                                  uint32_t block, uint64_t bytes) {
  return host_.Written(attachment, reservation, block, bytes);
}

LaneUse CountedHost::use() const {
  return {.blocks_read = blocks_read_.load(std::memory_order_relaxed),
          .bytes_read = bytes_read_.load(std::memory_order_relaxed),
          .blocks_written = blocks_written_.load(std::memory_order_relaxed),
          .bytes_written = bytes_written_.load(std::memory_order_relaxed)};
}

}  // namespace reprise::shard
