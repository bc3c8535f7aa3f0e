// Slots of the engine as pulled blocks go into them: host memory at once, a GPU's through its
// copies.
//
// Invariants: what was not committed is given back, at the latest when its writer is done.
//
// Thread safety: as PullTarget says.
#pragma once

#include <memory>

#include "cluster/peer/pull_target.h"
#include "service/shard/shard_engine.h"

namespace reprise::shard {

class EngineTarget final : public cluster::PullTarget {
 public:
  // `gpu`: the hbm tier's device, if there is one. REQUIRES: `engine` outlives this and all slots.
  explicit EngineTarget(ShardEngine& engine, int gpu = 0) : engine_(engine), gpu_(gpu) {}

  absl::StatusOr<uint32_t> Stored(const cluster::ReplicationJob& job) override;
  absl::StatusOr<std::unique_ptr<cluster::ChainSlots>> Reserve(
      const cluster::ReplicationJob& job) override;

 private:
  ShardEngine& engine_;
  const int gpu_;
};

}  // namespace reprise::shard
