// ShardService.Reserve: slots for the blocks that are not stored.
//
// Thread safety: Handle may be called from any thread.
#pragma once

#include "absl/status/status.h"
#include "reprise/v1/shard.pb.h"
#include "service/shard/handlers/shard_core.h"

namespace reprise::shard {

class ReserveHandler {
 public:
  explicit ReserveHandler(ShardCore& core) : core_(core) {}
  absl::Status Handle(const wire::Caller& caller, const v1::ReserveRequest& request,
                      v1::ReserveResponse& response);

 private:
  ShardCore& core_;
};

}  // namespace reprise::shard
