// Which block to drop next: five verbs over dense block ids. A policy owns none of the memory that
// it judges and knows nothing of prefixes: the caller says which ids may go, and touches a prefix
// run leaf first, root last, so that a run's tail always leaves before what it hangs from.
//
// Blocks are judged within a group (a key space); stamps compare groups.
// Thread safety: none; the caller holds the lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>

#include "absl/functional/function_ref.h"

namespace reprise::shard {

class EvictionPolicy {
 public:
  static constexpr uint64_t kNeverStamp = std::numeric_limits<uint64_t>::max();

  virtual ~EvictionPolicy() = default;

  // Starts judging `block`, as just used. REQUIRES: not tracked.
  virtual void Track(uint32_t block, uint32_t group) = 0;
  // `block` was used. REQUIRES: tracked.
  virtual void Touch(uint32_t block) = 0;
  // Stops judging `block`. REQUIRES: tracked.
  virtual void Forget(uint32_t block) = 0;

  // The block of `group` to drop next among those for which `eligible` says yes; it stays tracked.
  // A block met on the way for which it says no is in use, and counts as used now.
  virtual std::optional<uint32_t> Coldest(uint32_t group,
                                          absl::FunctionRef<bool(uint32_t)> eligible) = 0;
  // How long ago the group's coldest block was used: lower is longer ago. kNeverStamp: the group is
  // empty.
  virtual uint64_t ColdestStamp(uint32_t group) const = 0;
  // When `block` was used: lower is longer ago, over all groups. REQUIRES: tracked.
  virtual uint64_t Stamp(uint32_t block) const = 0;

  virtual bool tracks(uint32_t block) const = 0;
  virtual size_t tracked(uint32_t group) const = 0;
};

}  // namespace reprise::shard
