// ShardService.Explain: why a prompt hits as far as it does and no further.
//
// Thread safety: Handle may be called from any thread.
#pragma once

#include "absl/status/status.h"
#include "reprise/v1/shard.pb.h"
#include "service/shard/handlers/shard_core.h"

namespace reprise::shard {

class ExplainHandler {
 public:
  explicit ExplainHandler(ShardCore& core) : core_(core) {}
  absl::Status Handle(const wire::Caller& caller, const v1::ExplainRequest& request,
                      v1::ExplainResponse& response);

 private:
  ShardCore& core_;
};

}  // namespace reprise::shard
