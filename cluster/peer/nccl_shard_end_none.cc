// In place of nccl_shard_end.cc where the headers of NCCL or CUDA were not found: no NcclContext is
// made there either.
#include "cluster/peer/nccl_shard_end.h"
#include "proto/types/status_macros.h"

namespace reprise::cluster {

std::unique_ptr<NcclShardEnd> NcclShardEnd::Create(const NcclContext&, lanes::LaneHost*) {
  REPRISE_CHECK(false);
  return nullptr;
}

}  // namespace reprise::cluster
