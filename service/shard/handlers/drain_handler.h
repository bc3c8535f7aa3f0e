// AdminService.Drain: no more writes here, and what is stored goes to other shards.
//
// Thread safety: Handle may be called from any thread.
#pragma once

#include "absl/status/status.h"
#include "reprise/v1/admin.pb.h"
#include "service/shard/handlers/shard_core.h"

namespace reprise::shard {

class DrainHandler {
 public:
  explicit DrainHandler(ShardCore& core) : core_(core) {}
  absl::Status Handle(const v1::DrainRequest& request, v1::DrainResponse& response);

 private:
  ShardCore& core_;
};

}  // namespace reprise::shard
