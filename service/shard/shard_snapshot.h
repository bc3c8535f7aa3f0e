// What a shard process tells of itself, at one moment: for Describe and for the status port.
//
// Invariants: counters never fall while the process lives.
//
// Thread safety: values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "cluster/membership/membership.h"
#include "cluster/peer/drain.h"
#include "cluster/peer/puller.h"
#include "cluster/peer/replicator.h"
#include "proto/types/ids.h"
#include "service/shard/counted_host.h"
#include "service/shard/shard_engine.h"

namespace reprise::shard {

using NamedCounters = std::vector<std::pair<std::string, uint64_t>>;

// A lane that this shard does not offer, and why not, for people.
struct AbsentLane {
  LaneKind lane = LaneKind::kStream;
  std::string why;
};

// Of the lanes that work beside the service.
struct LanesUse {
  LaneUse view;
  LaneUse tcp;
  uint64_t tcp_connections = 0;  // now
  uint64_t tcp_verbs = 0;        // answered on the tcp port, refusals included
  LaneUse nccl;
  uint64_t nccl_links_served = 0;  // that callers made to this shard and hold now
  uint64_t nccl_links_made = 0;    // that this shard made to its peers and holds now
  uint64_t nccl_link_failures = 0;

  // As Describe shows them.
  NamedCounters Named() const;
};

struct PeersUse {
  cluster::MembershipState membership;
  uint64_t known = 0;  // other shards in the member list
  cluster::ReplicatorCounters replication;
  cluster::PullerCounters pulls;
  cluster::DrainProgress drain;
  uint64_t failures = 0;
  uint64_t bytes_per_second = 0;  // seen lately between this shard and others; 0: nothing was

  // As Describe shows them.
  NamedCounters Named() const;
};

struct ShardSnapshot {
  std::string id;
  std::string version;
  std::string address;  // host:port that gRPC is served on
  absl::Duration uptime;
  bool draining = false;
  EngineDescription engine;  // specs as asked for, blocks of all tenants
  uint64_t refused_overload = 0;
  LaneUse stream;
  LanesUse lanes;
  std::optional<PeersUse> peers;  // nullopt: this shard is alone
  std::vector<LaneKind> lanes_offered;
  std::vector<AbsentLane> lanes_absent;
};

struct ShardCore;
// With the specs of one tenant, or of all.
ShardSnapshot SnapshotOf(const ShardCore& core, const std::optional<Tenant>& tenant);

}  // namespace reprise::shard
