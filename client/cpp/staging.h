// Staging buffers: where a block is put together, or taken apart, when a lane does not reach the
// shard's slots. Each block size has a slab of its own, allocated and faulted in once, at its first
// use.
//
// Invariants: a buffer belongs to one holder at a time; no slab is larger than kStagingBytesMax.
// Thread safety: all methods may be called from any thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace reprise::client {

class Staging;

// One block's memory; goes back when it dies.
class StagingBuffer {
 public:
  StagingBuffer() = default;
  StagingBuffer(StagingBuffer&& other) noexcept;
  StagingBuffer& operator=(StagingBuffer&& other) noexcept;
  ~StagingBuffer();

  std::span<uint8_t> bytes() const { return bytes_; }

 private:
  friend class Staging;
  Staging* owner_ = nullptr;
  uint64_t block_bytes_ = 0;
  std::span<uint8_t> bytes_;
};

class Staging {
 public:
  // `threads`: of the client, each of which works on one block at a time.
  explicit Staging(size_t threads);
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  // DEADLINE_EXCEEDED when no buffer comes free by then, RESOURCE_EXHAUSTED when the memory cannot
  // be had.
  absl::StatusOr<StagingBuffer> Get(uint64_t block_bytes, absl::Time deadline);

  // Of all slabs.
  uint64_t capacity_bytes() const;

 private:
  friend class StagingBuffer;
  struct Slab {
    uint8_t* memory = nullptr;
    uint64_t bytes = 0;
    std::vector<uint8_t*> free;
    bool HasFree() const { return !free.empty(); }
  };
  absl::Status Allocate(uint64_t block_bytes, Slab& slab);
  void Put(uint64_t block_bytes, uint8_t* buffer);

  const size_t threads_;
  mutable absl::Mutex mu_;
  std::map<uint64_t, std::unique_ptr<Slab>> slabs_ ABSL_GUARDED_BY(mu_);
};

}  // namespace reprise::client
