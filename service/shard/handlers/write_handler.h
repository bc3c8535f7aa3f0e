// ShardService.Write: reserved slots filled over the stream lane.
//
// Thread safety: Open may be called from any thread; gRPC owns what it returns.
#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include "service/shard/handlers/shard_core.h"

namespace reprise::shard {

class WriteHandler {
 public:
  explicit WriteHandler(ShardCore& core) : core_(core) {}
  grpc::ServerReadReactor<grpc::ByteBuffer>* Open(grpc::CallbackServerContext* context,
                                                  grpc::ByteBuffer* response);

 private:
  ShardCore& core_;
};

}  // namespace reprise::shard
