// Moves blocks between an engine's paged K/V tensors and the canonical block layout.
//
// A plan is computed once per engine: for each plane (layer, K or V) a base pointer and byte
// strides by page, head and token. Any paged layout is such strides: separate K and V or packed,
// NHD or HND, per-layer tensors. A canonical block is [layer][plane][head][token][row], rows padded
// to 16 bytes (proto/types/cache_spec.h); padding is written as zeros by Gather and not read by
// Scatter.
//
// Thread safety: a plan is immutable; Gather and Scatter may run in parallel on different pages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace reprise::kernels {

// One (layer, K|V) of the engine's memory.
struct PagedPlane {
  uint8_t* base = nullptr;  // element [page 0][head 0][token 0][0]
  int64_t page_stride_bytes = 0;
  int64_t head_stride_bytes = 0;
  int64_t token_stride_bytes = 0;
};

struct PagedPlan {
  std::vector<PagedPlane> planes;  // [layer * planes_per_layer + plane]
  uint32_t planes_per_layer = 0;   // 2 for GQA, 1 for MLA
  uint32_t heads = 0;
  uint32_t page_tokens = 0;   // tokens of one engine page
  uint32_t block_tokens = 0;  // tokens of one block: a multiple of page_tokens
  uint32_t row_data_bytes = 0;
  uint32_t row_bytes = 0;    // row_data_bytes padded to 16
  uint64_t block_bytes = 0;  // planes * heads * block_tokens * row_bytes

  uint32_t PagesPerBlock() const { return block_tokens / page_tokens; }
};

// Packs one block. `pages` are the block's engine pages in token order: PagesPerBlock() of them.
// REQUIRES: block has plan.block_bytes bytes and does not overlap the engine's memory.
void GatherBlock(const PagedPlan& plan, std::span<const int64_t> pages, uint8_t* block);

// Unpacks one block. Same requirements.
void ScatterBlock(const PagedPlan& plan, std::span<const int64_t> pages, const uint8_t* block);

}  // namespace reprise::kernels
