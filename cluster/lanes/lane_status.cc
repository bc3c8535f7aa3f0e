#include "cluster/lanes/lane_status.h"

#include "absl/strings/str_cat.h"
#include "proto/types/refusal.h"

namespace reprise::lanes {
namespace {
constexpr char kLaneDown[] = "LANE_DOWN";
}

absl::Status CheckBlockBytes(uint32_t block, uint64_t slot_bytes, uint64_t job_bytes) {
  if (slot_bytes == job_bytes) return absl::OkStatus();
  return Refusal(absl::StatusCode::kInvalidArgument, "BLOCK_BYTES",
                 absl::StrCat("block ", block, " has ", slot_bytes, " bytes on the shard and ",
                              job_bytes, " in the job: use the block_bytes that OpenSpec told"));
}

absl::Status LaneDown(absl::string_view sentence) {
  return Refusal(absl::StatusCode::kUnavailable, kLaneDown, sentence);
}

bool IsLaneDown(const absl::Status& status) {
  return absl::IsUnavailable(status) && RefusalReason(status) == kLaneDown;
}

}  // namespace reprise::lanes
