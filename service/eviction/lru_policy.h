// Least recently used first: one doubly linked list per group, threaded through vectors indexed by
// block id.
//
// Invariants: stamps rise from a list's cold end to its hot end.
// Thread safety: none; the caller holds the lock.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "service/eviction/eviction_policy.h"

namespace reprise::shard {

class LruPolicy final : public EvictionPolicy {
 public:
  void Track(uint32_t block, uint32_t group) override;
  void Touch(uint32_t block) override;
  void Forget(uint32_t block) override;
  std::optional<uint32_t> Coldest(uint32_t group,
                                  absl::FunctionRef<bool(uint32_t)> eligible) override;
  uint64_t ColdestStamp(uint32_t group) const override;
  uint64_t Stamp(uint32_t block) const override;
  bool tracks(uint32_t block) const override {
    return block < nodes_.size() && nodes_[block].stamp != 0;
  }
  size_t tracked(uint32_t group) const override;

 private:
  static constexpr uint32_t kNone = UINT32_MAX;

  struct Node {
    uint32_t colder = kNone;
    uint32_t hotter = kNone;
    uint32_t group = 0;
    uint64_t stamp = 0;  // 0: not tracked
  };
  struct List {
    uint32_t coldest = kNone;
    uint32_t hottest = kNone;
    size_t blocks = 0;
  };

  void PushHot(List& list, uint32_t block);
  void Unlink(List& list, uint32_t block);

  std::vector<Node> nodes_;
  absl::flat_hash_map<uint32_t, List> lists_;
  uint64_t next_stamp_ = 1;
};

}  // namespace reprise::shard
