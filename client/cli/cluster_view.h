// What routers and shards say about themselves, fetched for people.
//
// Thread safety: free functions; no shared state.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/cli/command.h"
#include "reprise/v1/admin.pb.h"
#include "reprise/v1/router.pb.h"
#include "reprise/v1/shard.pb.h"

namespace reprise::cli {

struct ShardReport {
  std::string address;
  std::string shard_id;  // as the router knows it, or as it says itself
  std::string state;     // "alive", ... as the router says; "" without a router
  absl::Status status;   // not OK: it did not answer
  v1::ShardServiceDescribeResponse description;
};

struct ClusterReport {
  std::string router;  // address; empty: shards were named
  v1::RouterServiceDescribeResponse router_description;
  std::vector<ShardReport> shards;  // by id
};

absl::StatusOr<v1::RouterServiceDescribeResponse> DescribeRouter(const std::string& address,
                                                                 absl::Time deadline);
absl::StatusOr<v1::ShardServiceDescribeResponse> DescribeShard(const std::string& address,
                                                               absl::Time deadline);
absl::StatusOr<v1::DrainResponse> DrainShard(const std::string& address,
                                             const v1::DrainRequest& request, absl::Time deadline);

// Asks the first router that answers, then every shard. UNAVAILABLE when no router answered.
absl::StatusOr<ClusterReport> DescribeCluster(const Where& where);

// The blocks that a shard holds now: its feed up to the snapshot's end. `on_stored` returns false
// to stop.
absl::Status ReadSnapshot(
    const std::string& address, absl::Time deadline,
    const std::function<bool(const v1::WatchBlocksResponse::Stored&)>& on_stored);

std::string HexOf(const std::string& bytes);
const char* StateName(v1::ShardState state);
const char* TierNameOf(v1::Tier tier);

}  // namespace reprise::cli
