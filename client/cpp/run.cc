#include "client/cpp/run.h"

#include <algorithm>
#include <utility>

namespace reprise::client {

Tier Segment::TierOf(uint32_t block) const {
  uint32_t at = first;
  for (const TierRun& run : tiers) {
    at += run.blocks;
    if (block < at) return run.tier;
  }
  return Tier::kDram;
}

Run::Run(RunOrigin origin, std::vector<Segment> segments, Releaser release)
    : origin_(std::move(origin)), release_(std::move(release)), segments_(std::move(segments)) {
  for (const Segment& segment : segments_) blocks_ = std::max(blocks_, segment.end);
}

Run::~Run() {
  absl::MutexLock lock(&mu_);
  if (!segments_.empty()) release_(std::move(segments_));
}

std::vector<Segment> Run::segments() const {
  absl::MutexLock lock(&mu_);
  return segments_;
}

bool Run::Intact() const {
  absl::MutexLock lock(&mu_);
  return std::all_of(segments_.begin(), segments_.end(),
                     [](const Segment& segment) { return segment.link->alive(); });
}

void Run::Add(Segment segment) {
  absl::MutexLock lock(&mu_);
  segments_.push_back(std::move(segment));
}

}  // namespace reprise::client
