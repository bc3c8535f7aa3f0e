// ShardService.Read: leased blocks over the stream lane.
//
// Thread safety: Open may be called from any thread; gRPC owns what it returns.
#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include "service/shard/handlers/shard_core.h"
#include "service/shard/work_queue.h"

namespace reprise::shard {

class ReadHandler {
 public:
  // `disk`: threads for what waits for one. REQUIRES: core and disk outlive the calls.
  ReadHandler(ShardCore& core, WorkQueue& disk) : core_(core), disk_(disk) {}
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Open(grpc::CallbackServerContext* context,
                                                   const grpc::ByteBuffer& request);

 private:
  ShardCore& core_;
  WorkQueue& disk_;
};

}  // namespace reprise::shard
