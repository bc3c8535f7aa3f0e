// ShardService.Remove: drops blocks and what is stored beneath them.
//
// Thread safety: Handle may be called from any thread.
#pragma once

#include "absl/status/status.h"
#include "reprise/v1/shard.pb.h"
#include "service/shard/handlers/shard_core.h"

namespace reprise::shard {

class RemoveHandler {
 public:
  explicit RemoveHandler(ShardCore& core) : core_(core) {}
  absl::Status Handle(const wire::Caller& caller, const v1::RemoveRequest& request,
                      v1::RemoveResponse& response);

 private:
  ShardCore& core_;
};

}  // namespace reprise::shard
