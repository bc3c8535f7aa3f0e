// Which shard sends which blocks of a run, over how many connections at once. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace reprise::client {

// Blocks [first, end) that one source has.
struct SourceRange {
  uint32_t first = 0;
  uint32_t end = 0;
  uint32_t flows = 1;  // lanes::Lane::flows()
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

// Into how many parts of nearly the same size `blocks` are cut that go over up to `flows`
// connections: none has fewer bytes than kFlowBytesMin, unless it is the only one, and blocks
// larger than kTransferChunkBytes, of which there is little staging, are not cut at all.
uint32_t FlowParts(uint32_t blocks, uint64_t block_bytes, uint32_t flows);
// Where part `part` of `parts` begins, and the one before it ends.
inline uint32_t PartBegin(uint32_t blocks, uint32_t part, uint32_t parts) {
  return static_cast<uint32_t>(uint64_t{blocks} * part / parts);
}

// The same plan with each piece cut for the connections of its source.
std::vector<FetchPiece> CutForFlows(std::span<const FetchPiece> plan,
                                    std::span<const SourceRange> sources, uint64_t block_bytes);

}  // namespace reprise::client
