// A tier whose device is lost: what lay there is a miss, and what was being written there is over.

#include "absl/time/clock.h"
#include "service/shard/shard_engine_impl.h"

namespace reprise::shard {

// Once for each. The pool grants no slot there from the moment that lost() says so, which is before
// this lock was taken: nothing new is there afterwards.
void ShardEngineImpl::WithdrawLostTiers() {
  for (Level level = 0; level < pool_->levels(); ++level) {
    if (!pool_->lost(level) || !withdrawn_.insert(level).second) continue;
    EndReservationsOn(level);
    DropAllOn(level);
  }
}

// Whole: their writers reserve anew, here on another tier or at another shard.
void ShardEngineImpl::EndReservationsOn(Level level) {
  std::vector<ReservationId> ended;
  for (const auto& [id, reservation] : reservations_) {
    for (size_t i = 0; i < reservation.blocks.size(); ++i) {
      const BlockId block = reservation.blocks[i];
      if (block == kNoBlock || blocks_[block].generation != reservation.generations[i]) continue;
      if (pool_->LevelOf(blocks_[block].slot) != level) continue;
      ended.push_back(id);
      break;
    }
  }
  for (ReservationId id : ended) EndReservation(id);
}

// And all that is stored beneath, on whichever tier: without what it hangs from it is of no use.
void ShardEngineImpl::DropAllOn(Level level) {
  const Tombstone tombstone{.cause = DropCause::kTierLost,
                            .unix_ms = absl::ToUnixMillis(absl::Now())};
  for (BlockId top = 0; top < blocks_.size(); ++top) {
    if (waiting_.Contains(top) && pool_->LevelOf(blocks_[top].slot) == level) {
      LetGo(top);
      continue;
    }
    if (blocks_[top].state != BlockState::kCommitted) continue;
    if (pool_->LevelOf(blocks_[top].slot) != level) continue;
    KeySpace& space = SpaceOf(blocks_[top].space);
    while (blocks_[top].children > 0) {
      Drop(space, blocks_.FirstLeafBelow(top), tombstone, BlockState::kHidden);
      counters_.Add(Counter::kLostBlocks);
    }
    Drop(space, top, tombstone, BlockState::kHidden);
    counters_.Add(Counter::kLostBlocks);
  }
}

}  // namespace reprise::shard
