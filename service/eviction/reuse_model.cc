#include "service/eviction/reuse_model.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace reprise::shard {
namespace {

constexpr uint64_t kSteps2 = limits::kReuseAgeSteps;
static_assert(std::has_single_bit(kSteps2));
constexpr int kStepBits = std::countr_zero(kSteps2);

double PriorWorth(double age) {
  return 1 / std::max(age, 1.0);
}

}  // namespace

// The bits below the highest one that choose a step within a doubling are kept, as a float does.
size_t ReuseModel::Step(uint64_t age) {
  if (age < kSteps2) return age;
  const int doubling = std::bit_width(age) - 1 - kStepBits;
  const size_t step = (static_cast<size_t>(doubling) << kStepBits) + (age >> doubling);
  return std::min(step, kSteps - 1);
}

double ReuseModel::AgeOf(size_t step) {
  if (step < kSteps2) return static_cast<double>(step);
  const auto doubling = static_cast<int>(step >> kStepBits) - 1;
  return std::ldexp(static_cast<double>(kSteps2 + (step & (kSteps2 - 1))), doubling);
}

double ReuseModel::Worth(uint32_t uses, uint64_t age) const {
  const Class& blocks = classes_[IndexOf(uses)];
  return blocks.learned ? blocks.worth[Step(age)] : PriorWorth(AgeOf(Step(age)));
}

// Of a block that has waited until `step`, as `waiting` of the class have. The prior is a few
// blocks more that waited as long and came back after as long again.
double ReuseModel::WorthAt(const Class& blocks, size_t step, double waiting) {
  const double age = std::max(AgeOf(step), 1.0);
  double used = limits::kReusePriorBlocks;
  double cost = limits::kReusePriorBlocks * age;
  if (waiting == 0) return PriorWorth(age);
  double worth = 0;
  for (size_t until = step; until + 1 < kSteps && waiting > 0; ++until) {
    cost += waiting * (AgeOf(until + 1) - AgeOf(until));
    used += blocks.reused[until];
    worth = std::max(worth, used / cost);
    waiting -= blocks.reused[until] + blocks.given_up[until];
  }
  return worth;
}

void ReuseModel::Refit() {
  for (Class& blocks : classes_) {
    double waiting = 0;
    for (size_t step = kSteps; step-- > 0;) {
      waiting += blocks.reused[step] + blocks.given_up[step];
      blocks.worth[step] = WorthAt(blocks, step, waiting);
    }
    blocks.learned = true;
    for (Curve* curve : {&blocks.reused, &blocks.given_up}) {
      for (double& seen : *curve) seen *= limits::kReuseDecay;
    }
  }
}

}  // namespace reprise::shard
