// ShardService.Attach: a client's presence, from hello to the end of its stream.
//
// Invariants: an attachment exists in the engine exactly while its stream is open after a hello;
// whatever ends the stream ends its leases, reservations, reads and writes.
//
// Thread safety: Open may be called from any thread; gRPC owns what it returns.
#pragma once

#include <grpcpp/support/server_callback.h>

#include "reprise/v1/shard.pb.h"
#include "service/shard/handlers/shard_core.h"

namespace reprise::shard {

class AttachHandler {
 public:
  explicit AttachHandler(ShardCore& core) : core_(core) {}
  grpc::ServerBidiReactor<v1::AttachRequest, v1::AttachResponse>* Open(
      grpc::CallbackServerContext* context);

 private:
  ShardCore& core_;
};

}  // namespace reprise::shard
