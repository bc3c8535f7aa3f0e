// How soon blocks come back, learned from those that did and those that did not, and what that
// makes a block worth that has lain unused for a while.
//
// The worth of a block is the chance that it is used again over the time that it is expected to lie
// there until then, for the most favourable time to give up. That is the Gittins index of
// the wait; LHD (Beckmann, Chen and Cidon, NSDI 2018) ranks by the like of it, as hit density.
// Blocks are told apart by how often they were used: a prompt's new tail, a conversation's middle
// and a system prompt come back at different rates. Until something was learned, the worth is
// 1 / age for all, which is the order of the least recently used.
//
// Ages count what happens to blocks (any block: EvictionOrder's counter), so that a busy shard
// and an idle one learn the same.
// Thread safety: none; the caller holds the lock.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "proto/types/limits.h"

namespace reprise::shard {

class ReuseModel {
 public:
  // A block that had been used `uses` times was used again `age` after the last time.
  void Reused(uint32_t uses, uint64_t age) { ++Of(uses).reused[Step(age)]; }
  // It was not for `age`, and will not be observed any longer.
  void GivenUp(uint32_t uses, uint64_t age) { ++Of(uses).given_up[Step(age)]; }

  // Takes up what was observed; what was observed before the last refits counts less and less.
  void Refit();

  // REQUIRES: uses > 0.
  double Worth(uint32_t uses, uint64_t age) const;

 private:
  // Ages are told apart in steps: each of the first few, then kReuseAgeSteps for each doubling.
  static constexpr size_t kSteps = 40 * limits::kReuseAgeSteps;
  using Curve = std::array<double, kSteps>;  // by step

  static const Curve kAges;  // where each step begins

  struct Class {
    Curve reused{};
    Curve given_up{};
    Curve worth{};
    bool learned = false;  // worth is of use
  };

  static size_t Step(uint64_t age);
  static double WorthAt(const Class& blocks, size_t step, double waiting);

  static size_t IndexOf(uint32_t uses) {
    return (uses < limits::kReuseClasses ? uses : limits::kReuseClasses) - 1;
  }
  Class& Of(uint32_t uses) { return classes_[IndexOf(uses)]; }

  std::array<Class, limits::kReuseClasses> classes_;
};

}  // namespace reprise::shard
