#include "service/router/route_policy.h"

#include <algorithm>
#include <cmath>

#include "proto/types/limits.h"
#include "proto/types/status_macros.h"

namespace reprise::router {

double LoadMeter::At(absl::Time now) const {
  if (now <= at_) return value_;
  if (at_ == absl::InfinitePast()) return 0;
  return value_ * std::exp2(-absl::FDivDuration(now - at_, limits::kLoadHalfLife));
}

void LoadMeter::Add(absl::Time now) {
  value_ = At(now) + 1;
  at_ = std::max(at_, now);
}

MoveCost MoveCostOf(absl::Duration compute_block, uint64_t block_bytes,
                    uint64_t peer_bytes_per_second) {
  if (compute_block <= absl::ZeroDuration() || peer_bytes_per_second == 0) return {};
  const absl::Duration move_block =
      absl::Seconds(static_cast<double>(block_bytes) / static_cast<double>(peer_bytes_per_second));
  return {.per_block = absl::FDivDuration(move_block, compute_block),
          .setup = absl::FDivDuration(limits::kMoveSetup, compute_block)};
}

size_t ChooseShard(std::span<const RouteCandidate> candidates, size_t prompt_blocks) {
  REPRISE_CHECK(!candidates.empty());
  double total = 0;
  for (const RouteCandidate& c : candidates) total += c.load;
  const double mean = std::max(total / static_cast<double>(candidates.size()), 1e-9);
  const double prompt = std::max<double>(static_cast<double>(prompt_blocks), 1);
  uint32_t longest = 0;
  for (const RouteCandidate& c : candidates) longest = std::max(longest, c.run_blocks);
  size_t best = 0;
  double best_cost = 0;
  for (size_t i = 0; i < candidates.size(); ++i) {
    const double elsewhere = longest - candidates[i].run_blocks;
    const double moved =
        std::min(elsewhere, candidates[i].move.setup + elsewhere * candidates[i].move.per_block);
    const double missing = (prompt - longest + moved) / prompt;
    const double cost = missing + limits::kLoadWeight * (candidates[i].load / mean);
    if (i == 0 || cost < best_cost) {
      best = i;
      best_cost = cost;
    }
  }
  return best;
}

}  // namespace reprise::router
