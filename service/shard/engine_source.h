// The engine's committed blocks as they are copied to other shards.
//
// Invariants: the blocks of an open chain stay where they are until the chain is destroyed,
// whatever becomes of their lease.
//
// Thread safety: as ReplicationSource says.
#pragma once

#include <memory>

#include "cluster/peer/replication_source.h"
#include "service/shard/shard_engine.h"

namespace reprise::shard {

class EngineSource final : public cluster::ReplicationSource {
 public:
  // REQUIRES: `engine` outlives this and every chain that it opened.
  explicit EngineSource(ShardEngine& engine) : engine_(engine) {}

  absl::StatusOr<std::unique_ptr<cluster::SourceChain>> Open(const cluster::ReplicationJob& job,
                                                             uint32_t first) override;
  std::unique_ptr<cluster::StoredChains> Chains() override;

 private:
  ShardEngine& engine_;
};

// A committed chain as it is copied to other shards.
cluster::ReplicationJob ToReplicationJob(CommittedChain chain);

}  // namespace reprise::shard
