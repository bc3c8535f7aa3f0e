#include "client/cpp/fetch_plan.h"

#include <algorithm>

#include "proto/types/limits.h"

namespace reprise::client {
namespace {

void Append(FetchPiece piece, std::vector<FetchPiece>& plan) {
  if (piece.first == piece.end) return;
  if (!plan.empty() && plan.back().source == piece.source && plan.back().end == piece.first) {
    plan.back().end = piece.end;
    return;
  }
  plan.push_back(piece);
}

}  // namespace

std::vector<FetchPiece> PlanFetch(std::span<const SourceRange> sources, uint32_t first,
                                  uint32_t end) {
  std::vector<FetchPiece> plan;
  for (uint32_t at = first; at < end;) {
    // The blocks from `at` on over which the same sources have them.
    std::vector<uint32_t> covering;
    uint32_t until = end;
    for (uint32_t s = 0; s < sources.size(); ++s) {
      if (sources[s].first <= at && at < sources[s].end) {
        covering.push_back(s);
        until = std::min(until, sources[s].end);
      } else if (sources[s].first > at) {
        until = std::min(until, sources[s].first);
      }
    }
    if (covering.empty()) break;
    const uint32_t blocks = until - at;
    const uint32_t parts =
        std::max<uint32_t>(1, std::min<uint32_t>(static_cast<uint32_t>(covering.size()),
                                                 blocks / limits::kFetchPieceBlocksMin));
    for (uint32_t part = 0; part < parts; ++part) {
      const uint32_t from = at + static_cast<uint32_t>(uint64_t{blocks} * part / parts);
      const uint32_t to = at + static_cast<uint32_t>(uint64_t{blocks} * (part + 1) / parts);
      Append({covering[part], from, to}, plan);
    }
    at = until;
  }
  return plan;
}

}  // namespace reprise::client
