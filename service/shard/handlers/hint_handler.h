// ShardService.Hint: keeps K/V that is not about to be used, or lets it go.
//
// Thread safety: Handle may be called from any thread.
#pragma once

#include "absl/status/status.h"
#include "reprise/v1/shard.pb.h"
#include "service/shard/handlers/shard_core.h"

namespace reprise::shard {

class HintHandler {
 public:
  explicit HintHandler(ShardCore& core) : core_(core) {}
  absl::Status Handle(const wire::Caller& caller, const v1::HintRequest& request,
                      v1::HintResponse& response);

 private:
  ShardCore& core_;
};

}  // namespace reprise::shard
