// ShardService.Commit: written blocks become findable.
//
// Thread safety: Handle may be called from any thread.
#pragma once

#include "absl/status/status.h"
#include "reprise/v1/shard.pb.h"
#include "service/shard/handlers/shard_core.h"

namespace reprise::shard {

class CommitHandler {
 public:
  explicit CommitHandler(ShardCore& core) : core_(core) {}
  absl::Status Handle(const wire::Caller& caller, const v1::CommitRequest& request,
                      v1::CommitResponse& response);

 private:
  ShardCore& core_;
};

}  // namespace reprise::shard
