#include "tests/bench/support/generated_trace.h"

#include <algorithm>
#include <cstdio>
#include <random>
#include <vector>

#include "service/sizing/replay.h"

namespace reprise::bench {

absl::StatusOr<sizing::Trace> TraceFor(const std::string& path, bool asked) {
  absl::StatusOr<sizing::Trace> trace = sizing::ReadTrace(path, {});
  if (trace.ok() || asked || !absl::IsNotFound(trace.status())) return trace;
  std::fprintf(stderr, "no trace at %s: generated requests of the same shape, seed 1\n",
               path.c_str());
  return GeneratedTrace(1);
}

sizing::Trace GeneratedTrace(uint32_t seed) {
  std::mt19937 random(seed);
  sizing::Trace trace = {.name = "generated", .block_tokens = 512};
  std::vector<std::vector<uint64_t>> conversations;
  uint64_t ids = 1;
  constexpr int kRequests = 12'000;
  std::geometric_distribution<int> first(0.06);
  std::geometric_distribution<int> more(0.25);
  for (int i = 0; i < kRequests; ++i) {
    // Recent conversations go on, older ones seldom do.
    const bool fresh = conversations.empty() || random() % 100 < 40;
    if (fresh) conversations.push_back({sizing::KeyOfId(0)});
    const size_t back = std::min<size_t>(std::geometric_distribution<size_t>(0.01)(random),
                                         conversations.size() - 1);
    std::vector<uint64_t>& blocks =
        fresh ? conversations.back() : conversations[conversations.size() - 1 - back];
    const int grow = 1 + (fresh ? first(random) : more(random));
    for (int b = 0; b < grow; ++b) blocks.push_back(sizing::KeyOfId(ids++));
    trace.requests.push_back({.at = absl::Milliseconds(294) * i,
                              .prompt_tokens = blocks.size() * trace.block_tokens,
                              .blocks = blocks});
  }
  return trace;
}

double InfiniteHitRatio(const sizing::Trace& trace) {
  const sizing::TraceTotals totals = sizing::TotalsOf(trace);
  if (totals.blocks == 0) return 0;
  return static_cast<double>(totals.hit_tokens) /
         static_cast<double>(totals.blocks * trace.block_tokens);
}

}  // namespace reprise::bench
