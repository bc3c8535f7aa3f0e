// Chunks of memory that gRPC may hold on to: handed out, sent as a slice, and back here when the
// transport drops it. Their pages are touched once and used again, which is what makes them fast.
//
// Invariants: at most limits::kStagingChunksMax chunks are kept for reuse; those beyond it are
// freed when they come back. A chunk that is out keeps the pool alive.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <grpcpp/support/slice.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace reprise::lanes {

class ChunkPool : public std::enable_shared_from_this<ChunkPool> {
 public:
  static std::shared_ptr<ChunkPool> Create() { return std::shared_ptr<ChunkPool>(new ChunkPool); }

  // limits::kStreamChunkBytes of memory.
  using Chunk = std::unique_ptr<uint8_t[]>;
  Chunk Take();
  // Back, when nobody holds a slice of it. nullptr is none.
  void Return(Chunk chunk);
  // The chunk's first `bytes` bytes as a slice; the chunk comes back when the last reference to it
  // is dropped.
  grpc::Slice ToSlice(Chunk chunk, size_t bytes);

  size_t idle() const;

 private:
  ChunkPool() = default;

  mutable absl::Mutex mu_;
  std::vector<Chunk> idle_ ABSL_GUARDED_BY(mu_);
};

}  // namespace reprise::lanes
