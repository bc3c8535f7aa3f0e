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

void CountedHost::ReadOut(uint64_t blocks, uint64_t bytes) {
  blocks_read_.fetch_add(blocks, std::memory_order_relaxed);
  bytes_read_.fetch_add(bytes, std::memory_order_relaxed);
  host_.ReadOut(blocks, bytes);
}

absl::Status CountedHost::Written(AttachmentId attachment, ReservationId reservation,
                                  uint32_t block, uint64_t bytes) {
  REPRISE_RETURN_IF_ERROR(host_.Written(attachment, reservation, block, bytes));
  blocks_written_.fetch_add(1, std::memory_order_relaxed);
  bytes_written_.fetch_add(bytes, std::memory_order_relaxed);
  return absl::OkStatus();
}

LaneUse CountedHost::use() const {
  return {.blocks_read = blocks_read_.load(std::memory_order_relaxed),
          .bytes_read = bytes_read_.load(std::memory_order_relaxed),
          .blocks_written = blocks_written_.load(std::memory_order_relaxed),
          .bytes_written = bytes_written_.load(std::memory_order_relaxed)};
}

}  // namespace reprise::shard
