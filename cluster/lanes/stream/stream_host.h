// The stream lane, shard's end: gRPC reactors for Read and Write of reprise.v1.ShardService over a
// LaneHost. Blocks are sent as a header slice and a slice over the slot itself, and received
// straight into the slot; a slot in device memory or in a file goes through staging chunks, a
// message at a time, the next one while the one before is on its way.
//
// Invariants: a slot stays pinned until gRPC has dropped the last slice over it; a block is
// reported Written only when all of its bytes came, in order, within one call; whatever ends a
// call, its pins and `hold` end with it.
//
// Thread safety: the functions may be called from any thread; gRPC owns what they return.
#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cluster/lanes/lane.h"
#include "cluster/lanes/stream/chunk_pool.h"
#include "reprise/v1/shard.pb.h"

namespace reprise::lanes {

// The stream is refused with `refusal` and nothing else happens.
grpc::ServerWriteReactor<grpc::ByteBuffer>* RefuseRead(const absl::Status& refusal);
grpc::ServerReadReactor<grpc::ByteBuffer>* RefuseWrite(const absl::Status& refusal);

struct ReadGuard {
  std::shared_ptr<const void> hold;  // dropped when the call is over
  // Shared by the calls of one host; nullptr: one of this call's own.
  std::shared_ptr<ChunkPool> staging;
  // Asked once, when some block is in a file: what it returns is held until the call is over, and
  // an error refuses it. Empty: always admitted.
  std::function<absl::StatusOr<std::shared_ptr<const void>>()> admit_file;
  // Runs a job later, on a thread that may wait for a disk: gRPC's own serve everybody. Empty: what
  // is in a file is read on theirs.
  std::function<void(std::function<void()>)> wait_elsewhere;
};

// Sends the blocks asked for. REQUIRES: `host` outlives the call.
grpc::ServerWriteReactor<grpc::ByteBuffer>* ServeRead(LaneHost& host,
                                                      const v1::ReadRequest& request,
                                                      ReadGuard guard);

struct WriteGuard {
  // Called once, with the attachment that the first message names; an error refuses the call.
  std::function<absl::Status(AttachmentId)> admit;
  std::shared_ptr<const void> hold;    // dropped when the call is over
  std::shared_ptr<ChunkPool> staging;  // as ReadGuard's
};

// Fills the slots written to. `response` is the call's.
// REQUIRES: `host` outlives the call.
grpc::ServerReadReactor<grpc::ByteBuffer>* ServeWrite(LaneHost& host, grpc::ByteBuffer* response,
                                                      WriteGuard guard);

}  // namespace reprise::lanes
