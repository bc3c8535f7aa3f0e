#include "cluster/lanes/in_process/in_process_lane.h"

#include <vector>

#include "absl/time/clock.h"
#include "cluster/lanes/lane_status.h"
#include "proto/types/status_macros.h"

namespace reprise::lanes {
namespace {

absl::Status CheckDeadline(absl::Time deadline) {
  if (absl::Now() < deadline) return absl::OkStatus();
  return absl::DeadlineExceededError("in-process lane: the deadline is over");
}

}  // namespace

absl::Status InProcessLane::Read(const ReadJob& job, BlockSink& sink, absl::Time deadline) {
  REPRISE_RETURN_IF_ERROR(CheckDeadline(deadline));
  REPRISE_ASSIGN_OR_RETURN(const std::vector<PinnedBytes> opened,
                           host_->OpenRead(attachment_, job.lease, job.first, job.blocks));
  for (uint32_t i = 0; i < opened.size(); ++i) {
    REPRISE_RETURN_IF_ERROR(CheckDeadline(deadline));
    REPRISE_RETURN_IF_ERROR(
        CheckBlockBytes(job.first + i, opened[i].bytes.size(), job.block_bytes));
    REPRISE_RETURN_IF_ERROR(sink.Deliver(i, opened[i].bytes));
  }
  return absl::OkStatus();
}

absl::Status InProcessLane::Write(const WriteJob& job, BlockSource& source, absl::Time deadline) {
  for (uint32_t i = 0; i < job.blocks.size(); ++i) {
    REPRISE_RETURN_IF_ERROR(CheckDeadline(deadline));
    REPRISE_ASSIGN_OR_RETURN(const PinnedSlot slot,
                             host_->OpenWrite(attachment_, job.reservation, job.blocks[i]));
    REPRISE_RETURN_IF_ERROR(CheckBlockBytes(job.blocks[i], slot.bytes.size(), job.block_bytes));
    REPRISE_RETURN_IF_ERROR(source.Fill(i, slot.bytes));
    REPRISE_RETURN_IF_ERROR(
        host_->Written(attachment_, job.reservation, job.blocks[i], slot.bytes.size()));
  }
  return absl::OkStatus();
}

}  // namespace reprise::lanes
