// ShardService.OpenSpec: a cache spec becomes a handle.
//
// Thread safety: Handle may be called from any thread.
#pragma once

#include "absl/status/status.h"
#include "reprise/v1/shard.pb.h"
#include "service/shard/handlers/shard_core.h"

namespace reprise::shard {

class OpenSpecHandler {
 public:
  explicit OpenSpecHandler(ShardCore& core) : core_(core) {}
  absl::Status Handle(const wire::Caller& caller, const v1::OpenSpecRequest& request,
                      v1::OpenSpecResponse& response);

 private:
  ShardCore& core_;
};

}  // namespace reprise::shard
