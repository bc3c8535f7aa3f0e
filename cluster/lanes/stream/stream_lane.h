// The stream lane, caller's end: Read and Write of reprise.v1.ShardService with the messages made
// and parsed by hand. Each byte is copied once, between gRPC's buffers and the caller's memory.
//
// Invariants: gRPC never holds a pointer into the caller's memory: a transport may keep what it has
// not sent yet long after a call was cancelled, and the caller's memory is the caller's again when
// the call has returned. What is written therefore goes through chunks that the lane owns and
// reuses.
//
// Thread safety: calls may run in parallel.
#pragma once

#include <grpcpp/channel.h>

#include <memory>

#include "cluster/lanes/lane.h"
#include "cluster/lanes/stream/chunk_pool.h"

namespace reprise::lanes {

class StreamLane final : public Lane {
 public:
  StreamLane(std::shared_ptr<grpc::Channel> channel, AttachmentId attachment);

  LaneKind kind() const override { return LaneKind::kStream; }
  absl::Status Read(const ReadJob& job, BlockSink& sink, absl::Time deadline) override;
  absl::Status Write(const WriteJob& job, BlockSource& source, absl::Time deadline) override;

 private:
  const std::shared_ptr<grpc::Channel> channel_;
  const AttachmentId attachment_;
  const std::shared_ptr<ChunkPool> chunks_;
};

}  // namespace reprise::lanes
