#include "service/sizing/reuse_curve.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>

#include "proto/types/status_macros.h"

namespace reprise::shard {
namespace {

constexpr int kStepBits = 5;  // 32 steps in each doubling
constexpr uint64_t kStepsPerDoubling = uint64_t{1} << kStepBits;
constexpr size_t kSteps = (64 - kStepBits + 1) << kStepBits;
constexpr size_t kSlotsMin = 1024;

// Of a distance of `bytes` + 1: the bits below the highest one that choose a step within a doubling
// are kept, as a float does.
size_t StepOf(uint64_t bytes) {
  if (bytes < kStepsPerDoubling) return bytes;
  const int doubling = std::bit_width(bytes) - 1 - kStepBits;
  return (static_cast<size_t>(doubling) << kStepBits) + (bytes >> doubling);
}

// The least of its distances, less 1.
double BytesOf(size_t step) {
  if (step < kStepsPerDoubling) return static_cast<double>(step);
  const auto doubling = static_cast<int>(step >> kStepBits) - 1;
  return std::ldexp(static_cast<double>(kStepsPerDoubling + (step & (kStepsPerDoubling - 1))),
                    doubling);
}

}  // namespace

ReuseCurve::ReuseCurve(uint64_t horizon_bytes, size_t samples_max)
    : horizon_bytes_(horizon_bytes), samples_max_(samples_max), hit_tokens_(kSteps) {
  REPRISE_CHECK(horizon_bytes >= 1 && samples_max >= 1);
  Compact();
}

void ReuseCurve::Count(uint64_t hash, uint64_t bytes, uint32_t tokens) {
  const double scale = 1 / rate();
  const double scaled_tokens = scale * tokens;
  counted_tokens_ += scaled_tokens;
  if (const auto it = followed_.find(hash); it != followed_.end()) {
    const uint64_t newer_bytes = followed_bytes_ - BytesUntil(it->second.slot + 1);
    // At most 2^63, so that it is one of the steps.
    const double distance = std::min(scale * static_cast<double>(newer_bytes), 0x1p62) +
                            std::min(static_cast<double>(bytes), 0x1p62);
    hit_tokens_[StepOf(static_cast<uint64_t>(std::max(distance, 1.0)) - 1)] += scaled_tokens;
  }
  Follow(hash, bytes);
}

void ReuseCurve::Follow(uint64_t hash, uint64_t bytes) {
  if (used_.size() + 1 >= tree_.size()) Compact();
  const auto [it, fresh] = followed_.try_emplace(hash);
  if (fresh) {
    hashes_.push(hash);
  } else {
    AddAt(it->second.slot, ~it->second.bytes + 1);
  }
  it->second = {.slot = used_.size(), .bytes = bytes};
  used_.push_back(hash);
  AddAt(it->second.slot, bytes);
  const auto beyond = [this] {
    return static_cast<double>(followed_bytes_) / rate() > static_cast<double>(horizon_bytes_);
  };
  while (followed_.size() > 1 && beyond()) ForgetOldest();
  if (followed_.size() > samples_max_) ForgetLargest();
}

void ReuseCurve::Forget(uint64_t hash) {
  const auto it = followed_.find(hash);
  AddAt(it->second.slot, ~it->second.bytes + 1);
  followed_.erase(it);
}

void ReuseCurve::ForgetOldest() {
  const auto is_followed = [this](size_t slot) {
    const auto it = followed_.find(used_[slot]);
    return it != followed_.end() && it->second.slot == slot;
  };
  while (!is_followed(oldest_)) ++oldest_;
  Forget(used_[oldest_]);
}

// The sample becomes what lies below it, so that what was followed of that stays whole.
void ReuseCurve::ForgetLargest() {
  while (!followed_.contains(hashes_.top())) hashes_.pop();
  const uint64_t hash = hashes_.top();
  hashes_.pop();
  Forget(hash);
  sampled_ = hash - 1;
}

// Hands out slots anew, from the first, in the order of use.
void ReuseCurve::Compact() {
  std::vector<uint64_t> used;
  used.reserve(followed_.size());
  for (size_t slot = 0; slot < used_.size(); ++slot) {
    const auto it = followed_.find(used_[slot]);
    if (it == followed_.end() || it->second.slot != slot) continue;
    it->second.slot = used.size();
    used.push_back(used_[slot]);
  }
  used_ = std::move(used);
  tree_.assign(std::max(kSlotsMin, 2 * used_.size()) + 1, 0);
  followed_bytes_ = 0;
  for (size_t slot = 0; slot < used_.size(); ++slot) AddAt(slot, followed_.at(used_[slot]).bytes);
  oldest_ = 0;
  hashes_ = std::priority_queue<uint64_t>(std::less<uint64_t>(), used_);
}

void ReuseCurve::AddAt(size_t slot, uint64_t bytes) {
  followed_bytes_ += bytes;
  for (size_t i = slot + 1; i < tree_.size(); i += i & (~i + 1)) tree_[i] += bytes;
}

uint64_t ReuseCurve::BytesUntil(size_t slot) const {
  uint64_t bytes = 0;
  for (size_t i = slot; i > 0; i -= i & (~i + 1)) bytes += tree_[i];
  return bytes;
}

double ReuseCurve::rate() const {
  return (static_cast<double>(sampled_) + 1) * 0x1p-64;
}

uint64_t ReuseCurve::HitTokens(uint64_t memory_bytes) const {
  if (memory_bytes == 0) return 0;
  const double asked = static_cast<double>(asked_tokens_);
  const size_t last = StepOf(memory_bytes);
  double tokens = asked - counted_tokens_;
  for (size_t step = 0; step < last; ++step) tokens += hit_tokens_[step];
  const double begin = BytesOf(last);
  const double width = BytesOf(last + 1) - begin;
  tokens += hit_tokens_[last] * std::min(1.0, (static_cast<double>(memory_bytes) - begin) / width);
  return static_cast<uint64_t>(std::llround(std::clamp(tokens, 0.0, asked)));
}

}  // namespace reprise::shard
