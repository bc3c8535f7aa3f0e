// The shard's AdminService: what people who run it ask of it. For operators and the
// cluster's own servers alone, where callers prove who they are.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <grpcpp/support/server_callback.h>

#include "reprise/v1/admin.grpc.pb.h"
#include "service/shard/handlers/drain_handler.h"
#include "service/shard/handlers/shard_core.h"

namespace reprise::shard {

class AdminService final : public v1::AdminService::CallbackService {
 public:
  // REQUIRES: `core` outlives the server that this is registered with.
  explicit AdminService(ShardCore& core) : core_(core), drain_(core) {}

  grpc::ServerUnaryReactor* Drain(grpc::CallbackServerContext* context,
                                  const v1::DrainRequest* request,
                                  v1::DrainResponse* response) override;

 private:
  const ShardCore& core_;
  DrainHandler drain_;
};

}  // namespace reprise::shard
