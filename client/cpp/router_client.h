// Where to ask: the routers' answers, and the placement that a client computes by itself when no
// router answers.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/types/block_key.h"
#include "proto/types/ids.h"

namespace reprise::wire {
class Credentials;
}

namespace reprise::client {

struct ShardTarget {
  ShardId id;
  std::string address;  // host:port
  friend bool operator==(const ShardTarget&, const ShardTarget&) = default;
};

// What a router believes of one shard: it holds this many leading blocks.
struct LocatedRun {
  ShardTarget shard;
  uint32_t blocks = 0;
  Tier tier = Tier::kDram;
};

struct Route {
  std::vector<ShardTarget> order;  // home first, then placement order; living shards only
  bool runs_known = false;         // false: nobody said who holds what
  std::vector<LocatedRun> runs;    // longest first
};

struct RouteCall {
  std::string session;  // empty: the first key stands for it
  Fingerprint fingerprint;
  std::span<const BlockKey> keys;  // empty: placement only
  absl::Duration compute_block;    // what computing a block takes the caller; zero: unknown
  uint64_t block_bytes = 0;        // as stored; with compute_block
};

// A question to routers that is under way.
class PendingRoute {
 public:
  // Gives up waiting; an answer that comes is heard all the same.
  virtual ~PendingRoute() = default;
  // As RouterClient::RouteSession. Once.
  virtual absl::StatusOr<Route> Await(absl::Time deadline) = 0;
};

class RouterClient {
 public:
  virtual ~RouterClient() = default;
  // UNAVAILABLE or DEADLINE_EXCEEDED when no router answered.
  virtual absl::StatusOr<Route> RouteSession(const RouteCall& call, absl::Time deadline) = 0;
  // The same, and need not wait for the answer. `heard` is given one that comes, on any thread and
  // before Await returns it; it must not block. `call` is read before this returns.
  using RouteHeard = std::function<void(const Route&)>;
  virtual std::unique_ptr<PendingRoute> StartRouteSession(const RouteCall& call,
                                                          absl::Time deadline,
                                                          RouteHeard heard) = 0;
  // The first router that answers names every shard it knows.
  virtual absl::StatusOr<std::vector<ShardTarget>> Shards(absl::Time deadline) = 0;
};

// Over gRPC to any of `addresses`: the one that answered last is asked first, the others when it
// fails. Without credentials in plaintext. REQUIRES: at least one address.
std::unique_ptr<RouterClient> MakeGrpcRouterClient(
    std::vector<std::string> addresses,
    const std::shared_ptr<const wire::Credentials>& credentials);

}  // namespace reprise::client
