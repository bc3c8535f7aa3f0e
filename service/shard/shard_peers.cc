#include "service/shard/shard_peers.h"

#include <utility>
#include <vector>

namespace reprise::shard {
namespace {

uint64_t CapacityOf(const ShardEngine& engine) {
  uint64_t bytes = 0;
  for (const TierUse& tier : engine.Describe(Tenant{}).tiers) bytes += tier.capacity_bytes;
  return bytes;
}

cluster::PeersOptions With(cluster::PeersOptions options, cluster::Membership* membership) {
  options.membership = membership;
  return options;
}

}  // namespace

ShardPeers::ShardPeers(std::unique_ptr<cluster::Membership> membership, ShardPeersOptions options,
                       ShardEngine& engine)
    : membership_(std::move(membership)),
      engine_(engine),
      peers_(With(std::move(options.peers), membership_.get())),
      source_(engine),
      target_(engine, options.gpu),
      puller_(peers_, target_),
      replicator_(cluster::Replicator::Create(
          {.replication = options.replication, .peers = &peers_, .source = &source_})),
      drain_(cluster::Drain::Create({.peers = &peers_,
                                     .source = &source_,
                                     .replication = options.replication,
                                     .capacity_bytes = CapacityOf(engine)})) {
  engine_.OnCommitted(
      [this](CommittedChain chain) { replicator_->Submit(ToReplicationJob(std::move(chain))); });
}

ShardPeers::~ShardPeers() {
  engine_.OnCommitted(nullptr);
}

PeersUse ShardPeers::use() const {
  return {.membership = membership_->State(),
          .known = peers_.count(),
          .replication = replicator_->counters(),
          .pulls = puller_.counters(),
          .drain = drain_->progress(),
          .failures = peers_.failures(),
          .bytes_per_second = peers_.bytes_per_second()};
}

}  // namespace reprise::shard
