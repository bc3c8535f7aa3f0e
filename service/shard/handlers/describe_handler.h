// ShardService.Describe: what this shard is, how full it is, and every limit that it keeps.
//
// Thread safety: Handle may be called from any thread.
#pragma once

#include "absl/status/status.h"
#include "reprise/v1/shard.pb.h"
#include "service/shard/handlers/shard_core.h"

namespace reprise::shard {

class DescribeHandler {
 public:
  explicit DescribeHandler(ShardCore& core) : core_(core) {}
  absl::Status Handle(const wire::Caller& caller, const v1::ShardServiceDescribeRequest& request,
                      v1::ShardServiceDescribeResponse& response);

 private:
  ShardCore& core_;
};

}  // namespace reprise::shard
