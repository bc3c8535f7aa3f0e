// Which shard sends which blocks of a run. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace reprise::client {

// Blocks [first, end) that one source has.
struct SourceRange {
  uint32_t first = 0;
  uint32_t end = 0;
};

struct FetchPiece {
  uint32_t source = 0;  // index into the ranges
  uint32_t first = 0;
  uint32_t end = 0;
  friend bool operator==(const FetchPiece&, const FetchPiece&) = default;
};

// Covers [first, end) from `first` on as far as the sources go without a gap. Where several sources
// have the same blocks each gets an equal part, but none fewer than kFetchPieceBlocksMin. Pieces
// are in block order, and neighbours of one source are one piece.
std::vector<FetchPiece> PlanFetch(std::span<const SourceRange> sources, uint32_t first,
                                  uint32_t end);

}  // namespace reprise::client
