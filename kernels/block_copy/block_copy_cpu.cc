#include <algorithm>
#include <cstring>

#include "kernels/block_copy/block_copy.h"
#include "proto/types/limits.h"

namespace reprise::kernels {
namespace {

enum class Direction { kGather, kScatter };

// A part of one plan with its sizes worked out.
struct Extent {
  uint32_t first_plane = 0;
  uint32_t end_plane = 0;
  uint32_t tokens = 0;      // that the engine has
  uint64_t head_bytes = 0;  // of one head of one plane of a block
  uint64_t plane_bytes = 0;
};

Extent ExtentOf(const PagedPlan& plan, const BlockPart& part) {
  const auto layers = static_cast<uint32_t>(plan.planes.size() / plan.planes_per_layer);
  const uint32_t first = std::min(part.first_layer, layers);
  Extent extent;
  extent.first_plane = first * plan.planes_per_layer;
  extent.end_plane = (first + std::min(part.layers, layers - first)) * plan.planes_per_layer;
  extent.tokens = std::min(part.tokens, plan.block_tokens);
  extent.head_bytes = uint64_t{plan.block_tokens} * plan.row_bytes;
  extent.plane_bytes = plan.heads * extent.head_bytes;
  return extent;
}

template <Direction kDirection>
inline void Move(uint8_t* engine, uint8_t* block, uint64_t bytes) {
  if constexpr (kDirection == Direction::kGather) {
    std::memcpy(block, engine, bytes);
  } else {
    std::memcpy(engine, block, bytes);
  }
}

// `tokens` rows of one head in one page.
template <Direction kDirection>
void MoveRows(const PagedPlan& plan, const PagedPlane& plane, uint8_t* engine, uint8_t* block,
              uint32_t tokens) {
  const uint64_t padding = plan.row_bytes - plan.row_data_bytes;
  if (padding == 0 && plane.token_stride_bytes == plan.row_bytes) {
    Move<kDirection>(engine, block, uint64_t{tokens} * plan.row_bytes);
    return;
  }
  for (uint32_t token = 0; token < tokens; ++token) {
    Move<kDirection>(engine, block, plan.row_data_bytes);
    if (kDirection == Direction::kGather && padding > 0) {
      std::memset(block + plan.row_data_bytes, 0, padding);
    }
    engine += plane.token_stride_bytes;
    block += plan.row_bytes;
  }
}

// One page of one plane, all heads. `block` is the row of head 0 and the page's first token.
template <Direction kDirection>
void MovePage(const PagedPlan& plan, const PagedPlane& plane, int64_t page, uint8_t* block,
              uint32_t tokens) {
  const uint64_t head_bytes = uint64_t{plan.block_tokens} * plan.row_bytes;
  if (page < 0) {
    if (kDirection == Direction::kGather) {
      for (uint32_t head = 0; head < plan.heads; ++head) {
        std::memset(block + head * head_bytes, 0, uint64_t{tokens} * plan.row_bytes);
      }
    }
    return;
  }
  uint8_t* engine = plane.base + page * plane.page_stride_bytes;
  const bool rows_adjoin =
      plan.row_bytes == plan.row_data_bytes && plane.token_stride_bytes == plan.row_bytes;
  const bool heads_adjoin = plane.head_stride_bytes == static_cast<int64_t>(head_bytes);
  if (rows_adjoin && heads_adjoin && tokens == plan.block_tokens) {
    Move<kDirection>(engine, block, plan.heads * head_bytes);
    return;
  }
  for (uint32_t head = 0; head < plan.heads; ++head) {
    MoveRows<kDirection>(plan, plane, engine + head * plane.head_stride_bytes,
                         block + head * head_bytes, tokens);
  }
}

void ZeroTokens(const PagedPlan& plan, const Extent& extent, uint8_t* plane_block) {
  const uint64_t kept = uint64_t{extent.tokens} * plan.row_bytes;
  if (kept == extent.head_bytes) return;
  for (uint32_t head = 0; head < plan.heads; ++head) {
    std::memset(plane_block + head * extent.head_bytes + kept, 0, extent.head_bytes - kept);
  }
}

template <Direction kDirection>
void MovePart(const PagedPlan& plan, const BlockPart& part, std::span<const int64_t> pages,
              uint8_t* block) {
  const Extent extent = ExtentOf(plan, part);
  for (uint32_t index = extent.first_plane; index < extent.end_plane; ++index) {
    uint8_t* plane_block = block + index * extent.plane_bytes;
    for (uint32_t token = 0, page = 0; token < extent.tokens; token += plan.page_tokens, ++page) {
      MovePage<kDirection>(plan, plan.planes[index], pages[page],
                           plane_block + uint64_t{token} * plan.row_bytes,
                           std::min(plan.page_tokens, extent.tokens - token));
    }
    if constexpr (kDirection == Direction::kGather) ZeroTokens(plan, extent, plane_block);
  }
}

}  // namespace

void GatherBlock(const PagedPlan& plan, std::span<const int64_t> pages, uint8_t* block) {
  MovePart<Direction::kGather>(plan, BlockPart{}, pages, block);
}

void ScatterBlock(const PagedPlan& plan, std::span<const int64_t> pages, const uint8_t* block) {
  ScatterBlockPart(plan, BlockPart{}, pages, block);
}

void GatherBlockPart(const PagedPlan& plan, const BlockPart& part, std::span<const int64_t> pages,
                     uint8_t* block) {
  MovePart<Direction::kGather>(plan, part, pages, block);
}

void ScatterBlockPart(const PagedPlan& plan, const BlockPart& part, std::span<const int64_t> pages,
                      const uint8_t* block) {
  // Scatter reads the block only.
  MovePart<Direction::kScatter>(plan, part, pages, const_cast<uint8_t*>(block));
}

const char* PlanFault(const PagedPlan& plan) {
  if (plan.planes_per_layer == 0) return "planes_per_layer is 0; it is 2 for K and V, 1 for MLA";
  if (plan.planes.empty()) return "planes is empty; give one per layer and K|V";
  if (plan.planes.size() % plan.planes_per_layer != 0) {
    return "planes is no multiple of planes_per_layer; give every layer all its planes";
  }
  if (plan.planes.size() / plan.planes_per_layer > limits::kLayersMax) {
    return "planes has more layers than a cache spec may have";
  }
  if (plan.heads == 0) return "heads is 0; it is the kv heads of this rank, 1 for MLA";
  if (plan.page_tokens == 0) return "page_tokens is 0; it is the tokens of one engine page";
  if (plan.block_tokens == 0 || plan.block_tokens % plan.page_tokens != 0) {
    return "block_tokens is no multiple of page_tokens; a block is whole pages";
  }
  if (plan.row_data_bytes == 0)
    return "row_data_bytes is 0; it is head_dim times the bytes of one element";
  if (plan.row_bytes % limits::kRowAlignBytes != 0 || plan.row_bytes < plan.row_data_bytes ||
      plan.row_bytes - plan.row_data_bytes >= limits::kRowAlignBytes) {
    return "row_bytes is not row_data_bytes padded to 16";
  }
  if (plan.block_bytes !=
      uint64_t{plan.planes.size()} * plan.heads * plan.block_tokens * plan.row_bytes) {
    return "block_bytes is not planes * heads * block_tokens * row_bytes";
  }
  for (const PagedPlane& plane : plan.planes) {
    if (plane.base == nullptr) return "a plane has no base pointer";
  }
  return "";
}

}  // namespace reprise::kernels
