#include "cluster/placement/topology.h"

namespace reprise::cluster {

const char* ShardStateName(ShardState state) {
  switch (state) {
    case ShardState::kAlive:
      return "alive";
    case ShardState::kDraining:
      return "draining";
    case ShardState::kDead:
      return "dead";
    case ShardState::kSyncing:
      return "syncing";
  }
  return "unknown";
}

}  // namespace reprise::cluster
