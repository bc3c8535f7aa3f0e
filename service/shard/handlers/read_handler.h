// ShardService.Read: leased blocks over the stream lane.
//
// Thread safety: Open may be called from any thread; gRPC owns what it returns.
#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include "service/shard/handlers/shard_core.h"

namespace reprise::shard {

class ReadHandler {
 public:
  explicit ReadHandler(ShardCore& core) : core_(core) {}
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Open(grpc::CallbackServerContext* context,
                                                   const grpc::ByteBuffer& request);

 private:
  ShardCore& core_;
};

}  // namespace reprise::shard
