// ShardService.Lookup: how long a prefix is stored.
//
// Thread safety: Handle may be called from any thread.
#pragma once

#include "absl/status/status.h"
#include "reprise/v1/shard.pb.h"
#include "service/shard/handlers/shard_core.h"

namespace reprise::shard {

class LookupHandler {
 public:
  explicit LookupHandler(ShardCore& core) : core_(core) {}
  absl::Status Handle(const wire::Caller& caller, const v1::LookupRequest& request,
                      v1::LookupResponse& response);

 private:
  ShardCore& core_;
};

}  // namespace reprise::shard
