// ShardService.Release: ends leases.
//
// Thread safety: Handle may be called from any thread.
#pragma once

#include "absl/status/status.h"
#include "reprise/v1/shard.pb.h"
#include "service/shard/handlers/shard_core.h"

namespace reprise::shard {

class ReleaseHandler {
 public:
  explicit ReleaseHandler(ShardCore& core) : core_(core) {}
  absl::Status Handle(const wire::Caller& caller, const v1::ReleaseRequest& request,
                      v1::ReleaseResponse& response);

 private:
  ShardCore& core_;
};

}  // namespace reprise::shard
