#include "service/eviction/reuse_model.h"

#include <algorithm>
#include <bit>

namespace reprise::shard {
namespace {

constexpr uint64_t kFirstSteps = limits::kReuseAgeSteps;  // of one age each
static_assert(std::has_single_bit(kFirstSteps));
constexpr int kStepBits = std::countr_zero(kFirstSteps);

// Where each step begins.
template <size_t kSteps>
constexpr std::array<double, kSteps> AgesOfSteps() {
  std::array<double, kSteps> ages{};
  for (size_t step = 0; step < kSteps; ++step) {
    const uint64_t doubling = step < kFirstSteps ? 0 : (step >> kStepBits) - 1;
    const uint64_t within = step < kFirstSteps ? step : kFirstSteps + (step & (kFirstSteps - 1));
    ages[step] = static_cast<double>(within << doubling);
  }
  return ages;
}

// Of a block of which nothing is known.
double PriorWorth(double age) {
  return 1 / std::max(age, 1.0);
}

}  // namespace

const ReuseModel::Curve ReuseModel::kAges = AgesOfSteps<kSteps>();

// The bits below the highest one that choose a step within a doubling are kept, as a float does.
size_t ReuseModel::Step(uint64_t age) {
  if (age < kFirstSteps) return age;
  const int doubling = std::bit_width(age) - 1 - kStepBits;
  const size_t step = (static_cast<size_t>(doubling) << kStepBits) + (age >> doubling);
  return std::min(step, kSteps - 1);
}

double ReuseModel::Worth(uint32_t uses, uint64_t age) const {
  const Class& blocks = classes_[IndexOf(uses)];
  const size_t step = Step(age);
  return blocks.learned ? blocks.worth[step] : PriorWorth(kAges[step]);
}

// Of a block that has waited until `step`, as `waiting` of the class have. The prior is a few
// blocks more that waited as long and came back after as long again.
double ReuseModel::WorthAt(const Class& blocks, size_t step, double waiting) {
  if (waiting <= 0 || step + 1 == kSteps) return PriorWorth(kAges[step]);
  double used = limits::kReusePriorBlocks;
  double cost = limits::kReusePriorBlocks / PriorWorth(kAges[step]);
  double worth = 0;
  for (size_t until = step; until + 1 < kSteps && waiting > 0; ++until) {
    cost += waiting * (kAges[until + 1] - kAges[until]);
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
