// What routers and shards say about themselves, fetched for people.
//
// Thread safety: free functions; no shared state.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/cli/command.h"
#include "proto/wire/credentials.h"
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
  // With which all of them were asked; nullptr: plaintext.
  std::shared_ptr<const wire::Credentials> credentials;
};

// One server, and how it is spoken to.
struct Server {
  std::string address;
  std::shared_ptr<const wire::Credentials> credentials;  // nullptr: plaintext
};

absl::StatusOr<v1::RouterServiceDescribeResponse> DescribeRouter(const Server& server,
                                                                 absl::Time deadline);
absl::StatusOr<v1::ShardServiceDescribeResponse> DescribeShard(const Server& server,
                                                               absl::Time deadline);
absl::StatusOr<v1::DrainResponse> DrainShard(const Server& server, const v1::DrainRequest& request,
                                             absl::Time deadline);

// Asks the first router that answers, then every shard. UNAVAILABLE when no router answered,
// INVALID_ARGUMENT naming what is wrong with an address or a certificate file.
absl::StatusOr<ClusterReport> DescribeCluster(const Where& where);

// The blocks that a shard holds now: its feed up to the snapshot's end. `on_stored` returns false
// to stop.
absl::Status ReadSnapshot(
    const Server& server, absl::Time deadline,
    const std::function<bool(const v1::WatchBlocksResponse::Stored&)>& on_stored);

std::string HexOf(const std::string& bytes);
const char* StateName(v1::ShardState state);
const char* TierNameOf(v1::Tier tier);

}  // namespace reprise::cli
