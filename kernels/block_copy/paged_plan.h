// Where an engine keeps its paged K/V, as base pointers and strides.
//
// A plan is computed once per engine: for each plane (layer, K or V) a base pointer and byte
// strides by page, head and token. Any paged layout is such strides: separate K and V or packed,
// NHD or HND, per-layer tensors.
//
// Thread safety: values. C++17, since CUDA sources include it.
#pragma once

#include <cstdint>
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

// The page number that stands for "no page here": Gather writes zeros for its tokens, Scatter skips
// them. Any other negative number means the same.
inline constexpr int64_t kNoPage = -1;

// What part of a block a copy is about.
struct BlockPart {
  static constexpr uint32_t kAll = ~uint32_t{0};

  uint32_t first_layer = 0;
  uint32_t layers = kAll;  // from first_layer on; kAll: to the last
  uint32_t tokens =
      kAll;  // the block's first tokens that the engine has: Gather writes zeros for the
             // others and Scatter leaves them alone; their pages are not looked at
};

}  // namespace reprise::kernels
