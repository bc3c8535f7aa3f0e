#include "cluster/lanes/stream/chunk_pool.h"

#include <utility>

#include "proto/types/limits.h"

namespace reprise::lanes {
namespace {

struct Lent {
  std::shared_ptr<ChunkPool> pool;
  ChunkPool::Chunk chunk;
};

}  // namespace

ChunkPool::Chunk ChunkPool::Take() {
  {
    absl::MutexLock lock(&mu_);
    if (!idle_.empty()) {
      Chunk chunk = std::move(idle_.back());
      idle_.pop_back();
      return chunk;
    }
  }
  return Chunk(new uint8_t[limits::kStreamChunkBytes]);
}

grpc::Slice ChunkPool::ToSlice(Chunk chunk, size_t bytes) {
  uint8_t* const memory = chunk.get();
  auto* lent = new Lent{shared_from_this(), std::move(chunk)};
  return grpc::Slice(
      memory, bytes,
      [](void* argument) {
        const std::unique_ptr<Lent> back(static_cast<Lent*>(argument));
        back->pool->Return(std::move(back->chunk));
      },
      lent);
}

size_t ChunkPool::idle() const {
  absl::MutexLock lock(&mu_);
  return idle_.size();
}

void ChunkPool::Return(Chunk chunk) {
  if (chunk == nullptr) return;
  absl::MutexLock lock(&mu_);
  if (idle_.size() < limits::kStagingChunksMax) idle_.push_back(std::move(chunk));
}

}  // namespace reprise::lanes
