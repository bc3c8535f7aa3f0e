// Which shard a prompt without a session goes to: the one where the least is left to compute or to
// bring from another shard, unless it has had more than its share of the recent work. Precise
// prefix and a small load weight hit within a few per cent of one pooled cache and keep the load
// even; a larger weight already costs hits (measured by reprise-bench-router).
//
// Thread safety: LoadMeter: none, the owner serialises. ChooseShard: a pure function.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/time/time.h"

namespace reprise::router {

// How often a shard was chosen lately: each choice counts 1 and halves every kLoadHalfLife.
class LoadMeter {
 public:
  void Add(absl::Time now);
  double At(absl::Time now) const;

 private:
  double value_ = 0;
  absl::Time at_ = absl::InfinitePast();
};

// What bringing blocks from another shard costs, in blocks that are computed in the same time. As
// it stands: as much as computing them.
struct MoveCost {
  double per_block = 1;
  double setup = 0;  // before the first one
};

// From what both were measured to take. An unknown rate (0) or a cost of zero: as much as
// computing.
MoveCost MoveCostOf(absl::Duration compute_block, uint64_t block_bytes,
                    uint64_t peer_bytes_per_second);

struct RouteCandidate {
  uint32_t run_blocks = 0;  // of the prompt, stored there
  double load = 0;          // LoadMeter::At
  MoveCost move;            // of blocks that another candidate has
};

// Index of the best candidate; among equals the first, so that the caller's order (placement)
// decides. A block that only another shard has costs what moving it does, or what computing it
// does, whichever is less for all of them together. REQUIRES: candidates is not empty.
size_t ChooseShard(std::span<const RouteCandidate> candidates, size_t prompt_blocks);

}  // namespace reprise::router
