#include "service/shard/shard_snapshot.h"

#include "proto/types/clock.h"
#include "service/shard/handlers/shard_core.h"
#include "service/shard/shard_peers.h"

namespace reprise::shard {
namespace {

void Append(NamedCounters& to, NamedCounters from) {
  for (auto& counter : from) to.push_back(std::move(counter));
}

}  // namespace

NamedCounters LanesUse::Named() const {
  NamedCounters counters = view.Named(LaneKind::kView);
  Append(counters, tcp.Named(LaneKind::kTcp));
  counters.emplace_back("tcp_connections", tcp_connections);
  counters.emplace_back("tcp_verbs_total", tcp_verbs);
  Append(counters, nccl.Named(LaneKind::kNccl));
  counters.emplace_back("nccl_links_served", nccl_links_served);
  counters.emplace_back("nccl_links_made", nccl_links_made);
  counters.emplace_back("nccl_link_failures_total", nccl_link_failures);
  return counters;
}

NamedCounters PeersUse::Named() const {
  NamedCounters counters = replication.Named();
  Append(counters, pulls.Named());
  Append(counters, drain.Named());
  counters.emplace_back("peer_failures_total", failures);
  counters.emplace_back("peer_bytes_per_second", bytes_per_second);
  return counters;
}

ShardSnapshot SnapshotOf(const ShardCore& core, const std::optional<Tenant>& tenant) {
  ShardSnapshot snapshot{.id = core.id.name,
                         .version = REPRISE_VERSION,
                         .uptime = MonotonicClock().Now() - core.started,
                         .draining = core.draining.load(std::memory_order_acquire),
                         .engine = core.engine.Describe(tenant),
                         .refused_overload = core.admission->refused(),
                         .stream = core.stream_host.use(),
                         .lanes_offered = core.lanes,
                         .lanes_absent = core.absent_lanes};
  if (core.lanes_use) snapshot.lanes = core.lanes_use();
  if (core.peers != nullptr) snapshot.peers = core.peers->use();
  return snapshot;
}

}  // namespace reprise::shard
