// What other amounts of memory would have kept of what is asked for here.

#include "service/pool/slot_allocator.h"
#include "service/shard/shard_engine_impl.h"

namespace reprise::shard {
namespace {

// Of the memory that the shard has: how much less, and how much more, is of interest.
constexpr double kSizes[] = {0.125, 0.25, 0.5, 1, 2, 4, 8, 16};
constexpr uint64_t kHorizonSize = 32;  // beyond the last of them, so that all it would have counts

}  // namespace

uint64_t ShardEngineImpl::SizingHorizonBytes(const TieredPool& pool) {
  return kHorizonSize * CapacityBytes(pool);
}

uint64_t ShardEngineImpl::CapacityBytes(const TieredPool& pool) {
  uint64_t bytes = 0;
  for (Level level = 0; level < pool.levels(); ++level) bytes += pool.capacity_bytes(level);
  return bytes;
}

// From the last block to the first, as they are used.
void ShardEngineImpl::NoteAsked(const KeySpace& space, std::span<const uint64_t> order_keys) {
  const uint64_t slot_bytes = SlotAllocator::SlotBytes(space.shape.block_bytes);
  for (size_t i = order_keys.size(); i > 0; --i) {
    sizing_.Ask(order_keys[i - 1], slot_bytes, space.spec.block_tokens);
  }
}

// What was generated comes back in the next turn, without having been asked for before; and copies
// of what is asked for elsewhere take room.
void ShardEngineImpl::NoteStored(const KeySpace& space, std::span<const BlockId> blocks) {
  const uint64_t slot_bytes = SlotAllocator::SlotBytes(space.shape.block_bytes);
  for (size_t i = blocks.size(); i > 0; --i) {
    sizing_.Keep(OrderKeyOf(SpaceKey{space.id, blocks_[blocks[i - 1]].key}), slot_bytes);
  }
}

SizingEstimate ShardEngineImpl::EstimateSizing() const {
  const uint64_t capacity_bytes = CapacityBytes(*pool_);
  SizingEstimate estimate = {.asked_tokens = sizing_.asked_tokens()};
  for (const double size : kSizes) {
    const auto memory_bytes = static_cast<uint64_t>(size * static_cast<double>(capacity_bytes));
    estimate.points.push_back({.memory_bytes = memory_bytes,
                               .hit_tokens = sizing_.HitTokens(memory_bytes),
                               .of_capacity = size});
  }
  return estimate;
}

}  // namespace reprise::shard
