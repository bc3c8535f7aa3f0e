// The statuses that lanes share.
//
// Thread safety: free functions; no shared state.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace reprise::lanes {

// OK, or INVALID_ARGUMENT (BLOCK_BYTES): the shard's slot and the caller's job disagree about a
// block's size.
absl::Status CheckBlockBytes(uint32_t block, uint64_t slot_bytes, uint64_t job_bytes);

// UNAVAILABLE (LANE_DOWN): the lane itself failed and not the shard, the sink or the source.
// Another lane to the same shard may finish the job.
absl::Status LaneDown(absl::string_view sentence);
bool IsLaneDown(const absl::Status& status);

}  // namespace reprise::lanes
