// The shard's extents as one caller has them mapped: each at most once for reading and once for
// writing.
//
// Invariants: an extent is mapped only when its file is sealed against shrinking and as large as
// told, so that no access within it can fault; no two mappings lie next to each other, so that what
// lies together is one extent's, as a driver that pins them wants it; a mapping lives as long as
// somebody uses it, even when the map lets go of it. Thread safety: all methods may be called from
// any thread.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <span>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "cluster/lanes/view/view_socket.h"

namespace reprise::lanes::view {

class Mapping {
 public:
  // UNAVAILABLE (LANE_DOWN) when the file is not what it should be or cannot be mapped.
  static absl::StatusOr<std::shared_ptr<const Mapping>> Create(const Descriptor& file,
                                                               uint64_t bytes, bool writable);
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  uint64_t size_bytes() const { return bytes_; }
  const uint8_t* data() const { return base_; }
  uint8_t* writable_data() const { return writable_ ? base_ : nullptr; }

 private:
  Mapping(void* reserved, uint8_t* base, uint64_t bytes, bool writable)
      : reserved_(reserved), base_(base), bytes_(bytes), writable_(writable) {}

  void* const reserved_;  // of a little more, around base_
  uint8_t* const base_;
  const uint64_t bytes_;
  const bool writable_;
};

class ExtentMap {
 public:
  // nullptr when the extent is not mapped that way yet.
  std::shared_ptr<const Mapping> Find(uint64_t extent, bool writable) const;
  void Add(uint64_t extent, bool writable, std::shared_ptr<const Mapping> mapping);

 private:
  using Key = std::pair<uint64_t, bool>;

  mutable absl::Mutex mu_;
  absl::flat_hash_map<Key, std::shared_ptr<const Mapping>> mappings_ ABSL_GUARDED_BY(mu_);
  std::list<Key> oldest_first_ ABSL_GUARDED_BY(mu_);
};

}  // namespace reprise::lanes::view
