// The shard's extents in host memory as the GPUs of this process reach them: mapped once more and
// pinned, so that blocks go between them and a GPU by its copy engine, and no CPU copies them.
//
// A reader has a file that it may read alone, and a pin of that kind; a writer's pin is good for
// both. A driver takes its time to pin an extent, so a thread does it. Until then, and where the
// driver refuses, the extent is used as any other host memory; a refused one is tried again after
// limits::kViewDeviceRetryAfter. Pages that a GPU has pinned do not go back to the machine when the
// shard gives an extent other memory for its next owner; so the thread looks every
// limits::kViewPinCheckInterval whether an extent's file has lost its pages, and lets go of it.
//
// Invariants: an extent is pinned at most once for reading and once for writing; what Find returned
// stays pinned while it lives. Thread safety: all methods may be called from any thread.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "cluster/lanes/view/extent_map.h"
#include "cluster/lanes/view/view_socket.h"
#include "cluster/lanes/view/view_wire.h"
#include "kernels/runtime/memory.h"

namespace reprise::lanes::view {

class PinnedMapping {
 public:
  struct Options {
    int device = 0;
    uint64_t bytes = 0;
    bool writable = false;
  };
  // UNAVAILABLE (LANE_DOWN) when the file cannot be mapped that way, else as PinnedRange::Create.
  static absl::StatusOr<std::shared_ptr<const PinnedMapping>> Create(const Options& options,
                                                                     Descriptor file);
  ~PinnedMapping();
  PinnedMapping(const PinnedMapping&) = delete;
  PinnedMapping& operator=(const PinnedMapping&) = delete;

  // Not to be written to unless it was mapped for that.
  uint8_t* data() const { return const_cast<uint8_t*>(mapping_->data()); }
  uint64_t size_bytes() const { return mapping_->size_bytes(); }
  // The file still has the pages that it had when they were pinned.
  bool Current() const;

 private:
  PinnedMapping(int device, Descriptor file, uint64_t file_blocks,
                std::shared_ptr<const Mapping> mapping, kernels::PinnedRange pinned)
      : device_(device),
        file_(std::move(file)),
        file_blocks_(file_blocks),
        mapping_(std::move(mapping)),
        pinned_(std::move(pinned)) {}

  const int device_;
  const Descriptor file_;
  const uint64_t file_blocks_;
  const std::shared_ptr<const Mapping> mapping_;  // outlives the pin
  std::optional<kernels::PinnedRange> pinned_;
};

class PinnedExtents {
 public:
  PinnedExtents() = default;
  ~PinnedExtents();
  PinnedExtents(const PinnedExtents&) = delete;
  PinnedExtents& operator=(const PinnedExtents&) = delete;

  struct Key {
    uint64_t extent = 0;
    bool writable = false;
    bool operator==(const Key&) const = default;
    template <typename H>
    friend H AbslHashValue(H h, const Key& key) {
      return H::combine(std::move(h), key.extent, key.writable);
    }
  };

  // nullptr when the extent is not pinned so.
  std::shared_ptr<const PinnedMapping> Find(const Key& key) const;
  // Whether the caller is to ask the shard for the extent's file and to call Pin with the answer.
  // Told to one caller for each attempt.
  bool Wanted(const Key& key);
  // Has the extent pinned soon, `device` being one that will copy from it or to it.
  void Pin(const Key& key, int device, const absl::StatusOr<Extent>& answer, Descriptor file);

 private:
  struct Entry {
    std::shared_ptr<const PinnedMapping> mapping;
    absl::Time retry_at;  // on MonotonicClock(), while there is no mapping
  };
  struct Job {
    Key key;
    PinnedMapping::Options options;
    Descriptor file;
  };

  void Work();
  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mu_) { return stopping_ || !jobs_.empty(); }
  void Forget(const Key& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Of extents that have other memory by now.
  void LetGo();

  mutable absl::Mutex mu_;
  absl::flat_hash_map<Key, Entry> entries_ ABSL_GUARDED_BY(mu_);
  std::list<Key> oldest_first_ ABSL_GUARDED_BY(mu_);
  std::list<Job> jobs_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_ ABSL_GUARDED_BY(mu_);  // since the first job
};

}  // namespace reprise::lanes::view
