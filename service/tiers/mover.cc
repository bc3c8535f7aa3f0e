#include "service/tiers/mover.h"

namespace reprise::shard {

MoveOutcome Move(TieredPool& pool, const TierMove& move) {
  if (!pool.Copy(move.from, move.to, move.shape.block_bytes).ok()) return MoveOutcome::kRefused;
  const auto arrived = pool.Checksums({&move.to, 1}, move.shape);
  if (!arrived.ok()) return MoveOutcome::kRefused;
  return arrived->front() == move.checksum ? MoveOutcome::kMoved : MoveOutcome::kCorrupt;
}

}  // namespace reprise::shard
