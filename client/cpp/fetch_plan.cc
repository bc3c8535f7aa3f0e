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
      Append({covering[part], at + PartBegin(blocks, part, parts),
              at + PartBegin(blocks, part + 1, parts)},
             plan);
    }
    at = until;
  }
  return plan;
}

uint32_t FlowParts(uint32_t blocks, uint64_t block_bytes, uint32_t flows) {
  if (block_bytes > limits::kTransferChunkBytes) return 1;
  const uint64_t worth = blocks * block_bytes / limits::kFlowBytesMin;
  return static_cast<uint32_t>(
      std::clamp<uint64_t>(worth, 1, std::min(std::max(flows, 1u), std::max(blocks, 1u))));
}

std::vector<FetchPiece> CutForFlows(std::span<const FetchPiece> plan,
                                    std::span<const SourceRange> sources, uint64_t block_bytes) {
  std::vector<FetchPiece> cut;
  for (const FetchPiece& piece : plan) {
    const uint32_t blocks = piece.end - piece.first;
    const uint32_t parts = FlowParts(blocks, block_bytes, sources[piece.source].flows);
    for (uint32_t part = 0; part < parts; ++part) {
      cut.push_back({piece.source, piece.first + PartBegin(blocks, part, parts),
                     piece.first + PartBegin(blocks, part + 1, parts)});
    }
  }
  return cut;
}

}  // namespace reprise::client
