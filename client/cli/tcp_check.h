// Whether the tcp lane of a cluster's shards is in reach from here.
//
// Thread safety: free functions; no shared state.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cli/cluster_view.h"
#include "client/cli/command.h"

namespace reprise::cli {

struct TcpReach {
  std::string shard_id;
  absl::Status status;  // OK: its port was reached and answered. Else why blocks go over gRPC
};

// Of every shard that answers. As DescribeCluster.
absl::StatusOr<std::vector<TcpReach>> ReachTcp(const Where& where);

}  // namespace reprise::cli
