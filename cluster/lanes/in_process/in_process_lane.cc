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

absl::Status Deliver(LaneHost& host, const PinnedBytes& block, uint32_t i, BlockSink& sink) {
  if (block.memory == MemoryKind::kHost) return sink.Deliver(i, block.bytes);
  if (block.memory == sink.memory()) return sink.DeliverDevice(i, {&block.bytes, 1});
  REPRISE_RETURN_IF_ERROR(host.CopyToHost(block.bytes, sink.Buffer(i).first(block.bytes.size())));
  return sink.Complete(i);
}

absl::Status Fill(LaneHost& host, const PinnedSlot& slot, uint32_t i, BlockSource& source) {
  if (slot.memory == MemoryKind::kHost) return source.Fill(i, slot.bytes);
  if (slot.memory == source.memory()) return source.FillDevice(i, {&slot.bytes, 1});
  REPRISE_ASSIGN_OR_RETURN(const std::span<const uint8_t> bytes, source.Bytes(i));
  REPRISE_RETURN_IF_ERROR(CheckBlockBytes(i, bytes.size(), slot.bytes.size()));
  return host.CopyToDevice(bytes, slot.bytes);
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
    REPRISE_RETURN_IF_ERROR(Deliver(*host_, opened[i], i, sink));
  }
  return absl::OkStatus();
}

absl::Status InProcessLane::Write(const WriteJob& job, BlockSource& source, absl::Time deadline) {
  for (uint32_t i = 0; i < job.blocks.size(); ++i) {
    REPRISE_RETURN_IF_ERROR(CheckDeadline(deadline));
    REPRISE_ASSIGN_OR_RETURN(const PinnedSlot slot,
                             host_->OpenWrite(attachment_, job.reservation, job.blocks[i]));
    REPRISE_RETURN_IF_ERROR(CheckBlockBytes(job.blocks[i], slot.bytes.size(), job.block_bytes));
    REPRISE_RETURN_IF_ERROR(Fill(*host_, slot, i, source));
    REPRISE_RETURN_IF_ERROR(
        host_->Written(attachment_, job.reservation, job.blocks[i], slot.bytes.size()));
  }
  return absl::OkStatus();
}

}  // namespace reprise::lanes
