// An engine's paged K/V memory of any layout, and the slow, obvious way to read and write it: the
// oracle of the copy and quantisation tests.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "kernels/block_copy/paged_plan.h"

namespace reprise::kernels {

// How one plane's tensor is laid out.
enum class PageOrder { kNhd, kHnd };

struct EngineShape {
  std::string name;
  PageOrder order = PageOrder::kNhd;
  bool packed = false;  // K and V of one page side by side in one tensor
  uint32_t planes_per_layer = 2;
  uint32_t layers = 2;
  uint32_t heads = 2;
  uint32_t row_data_bytes = 64;
  uint32_t page_tokens = 16;
  uint32_t block_tokens = 16;
  uint32_t pages = 24;
  uint32_t page_gap_bytes = 0;    // between two pages, which nobody may touch
  uint32_t row_gap_bytes = 0;     // between two rows likewise
  uint32_t base_shift_bytes = 0;  // of every tensor against 64-byte alignment
};

inline std::ostream& operator<<(std::ostream& out, const EngineShape& shape) {
  return out << shape.name;
}

class PagedEngine {
 public:
  explicit PagedEngine(const EngineShape& shape, uint64_t seed = 1) : shape_(shape) {
    const uint64_t row = shape.row_data_bytes + shape.row_gap_bytes;
    const uint64_t plane_page = uint64_t{shape.heads} * shape.page_tokens * row;
    const uint64_t planes_per_tensor = shape.packed ? shape.planes_per_layer : 1;
    const uint64_t page = plane_page * planes_per_tensor + shape.page_gap_bytes;
    const uint64_t tensor = (page * shape.pages + 64 + 63) / 64 * 64;
    const uint64_t tensors = uint64_t{shape.layers} * shape.planes_per_layer / planes_per_tensor;
    lines_.resize(tensor * tensors / sizeof(Line));
    auto* memory = reinterpret_cast<uint8_t*>(lines_.data());
    std::mt19937_64 random(seed);
    for (uint64_t at = 0; at < tensor * tensors; at += 8) {
      const uint64_t word = random();
      std::memcpy(memory + at, &word, sizeof(word));
    }

    plan_.planes_per_layer = shape.planes_per_layer;
    plan_.heads = shape.heads;
    plan_.page_tokens = shape.page_tokens;
    plan_.block_tokens = shape.block_tokens;
    plan_.row_data_bytes = shape.row_data_bytes;
    plan_.row_bytes = (shape.row_data_bytes + 15) / 16 * 16;
    for (uint64_t index = 0; index < uint64_t{shape.layers} * shape.planes_per_layer; ++index) {
      const uint64_t in_tensor = index % planes_per_tensor;
      PagedPlane plane;
      plane.base = memory + index / planes_per_tensor * tensor + in_tensor * plane_page +
                   shape.base_shift_bytes;
      plane.page_stride_bytes = static_cast<int64_t>(page);
      plane.token_stride_bytes =
          static_cast<int64_t>(shape.order == PageOrder::kNhd ? row * shape.heads : row);
      plane.head_stride_bytes =
          static_cast<int64_t>(shape.order == PageOrder::kNhd ? row : row * shape.page_tokens);
      plan_.planes.push_back(plane);
    }
    plan_.block_bytes = plan_.planes.size() * plan_.heads * plan_.block_tokens * plan_.row_bytes;
  }

  PagedEngine(const PagedEngine&) = delete;
  PagedEngine& operator=(const PagedEngine&) = delete;

  const PagedPlan& plan() const { return plan_; }

  uint8_t* data() { return reinterpret_cast<uint8_t*>(lines_.data()); }
  uint64_t size_bytes() const { return lines_.size() * sizeof(Line); }

  // All of the engine's memory, gaps included.
  std::vector<uint8_t> Snapshot() const {
    const auto* memory = reinterpret_cast<const uint8_t*>(lines_.data());
    return std::vector<uint8_t>(memory, memory + lines_.size() * sizeof(Line));
  }

  // One byte of one row, straight from the definition of a plan.
  uint8_t& At(uint32_t plane, int64_t page, uint32_t head, uint32_t token_in_page, uint32_t byte) {
    const PagedPlane& at = plan_.planes[plane];
    return at.base[page * at.page_stride_bytes + head * at.head_stride_bytes +
                   token_in_page * at.token_stride_bytes + byte];
  }

  // A random choice of distinct pages for one block.
  std::vector<int64_t> PickPages(std::mt19937_64& random) const {
    std::vector<int64_t> all(shape_.pages);
    for (uint32_t i = 0; i < shape_.pages; ++i) all[i] = i;
    std::shuffle(all.begin(), all.end(), random);
    all.resize(plan_.PagesPerBlock());
    return all;
  }

  // What Gather must write into `block`, byte by byte.
  void NaiveGather(const BlockPart& part, const std::vector<int64_t>& pages,
                   std::vector<uint8_t>& block) {
    ForEachByte(part,
                [&](uint32_t plane, uint32_t head, uint32_t token, uint32_t byte, uint64_t at) {
                  const bool there = byte < plan_.row_data_bytes && token < part.tokens &&
                                     pages[token / plan_.page_tokens] >= 0;
                  block[at] = there ? At(plane, pages[token / plan_.page_tokens], head,
                                         token % plan_.page_tokens, byte)
                                    : 0;
                });
  }

  // What Scatter must do to the engine's memory, byte by byte.
  void NaiveScatter(const BlockPart& part, const std::vector<int64_t>& pages,
                    const std::vector<uint8_t>& block) {
    ForEachByte(part,
                [&](uint32_t plane, uint32_t head, uint32_t token, uint32_t byte, uint64_t at) {
                  if (byte >= plan_.row_data_bytes || token >= part.tokens) return;
                  const int64_t page = pages[token / plan_.page_tokens];
                  if (page >= 0) At(plane, page, head, token % plan_.page_tokens, byte) = block[at];
                });
  }

 private:
  template <typename Visit>
  void ForEachByte(const BlockPart& part, Visit visit) {
    uint64_t at = 0;
    for (uint32_t plane = 0; plane < plan_.planes.size(); ++plane) {
      const uint32_t layer = plane / plan_.planes_per_layer;
      const bool chosen = layer >= part.first_layer && layer - part.first_layer < part.layers;
      for (uint32_t head = 0; head < plan_.heads; ++head) {
        for (uint32_t token = 0; token < plan_.block_tokens; ++token) {
          for (uint32_t byte = 0; byte < plan_.row_bytes; ++byte, ++at) {
            if (chosen) visit(plane, head, token, byte, at);
          }
        }
      }
    }
  }

  struct alignas(64) Line {
    uint8_t bytes[64];
  };

  EngineShape shape_;
  std::vector<Line> lines_;
  PagedPlan plan_;
};

// Layouts as engines have them, and odd ones.
inline std::vector<EngineShape> EngineShapes() {
  return {
      {.name = "nhd", .order = PageOrder::kNhd, .layers = 3, .heads = 4, .row_data_bytes = 256},
      {.name = "hnd", .order = PageOrder::kHnd, .layers = 3, .heads = 4, .row_data_bytes = 256},
      {.name = "packed_nhd",
       .order = PageOrder::kNhd,
       .packed = true,
       .heads = 3,
       .row_data_bytes = 128},
      {.name = "packed_hnd",
       .order = PageOrder::kHnd,
       .packed = true,
       .heads = 3,
       .row_data_bytes = 128},
      {.name = "mla", .planes_per_layer = 1, .layers = 4, .heads = 1, .row_data_bytes = 1152},
      {.name = "mla_small_pages",
       .planes_per_layer = 1,
       .heads = 1,
       .row_data_bytes = 1152,
       .page_tokens = 1,
       .block_tokens = 16},
      {.name = "odd_row_nhd", .order = PageOrder::kNhd, .heads = 3, .row_data_bytes = 130},
      {.name = "odd_row_hnd", .order = PageOrder::kHnd, .heads = 3, .row_data_bytes = 130},
      {.name = "one_byte_row", .order = PageOrder::kHnd, .heads = 2, .row_data_bytes = 1},
      {.name = "small_pages_nhd",
       .order = PageOrder::kNhd,
       .heads = 2,
       .row_data_bytes = 64,
       .page_tokens = 4,
       .block_tokens = 16},
      {.name = "small_pages_hnd",
       .order = PageOrder::kHnd,
       .heads = 2,
       .row_data_bytes = 64,
       .page_tokens = 8,
       .block_tokens = 32},
      {.name = "one_head_hnd", .order = PageOrder::kHnd, .heads = 1, .row_data_bytes = 64},
      {.name = "gaps",
       .order = PageOrder::kNhd,
       .heads = 2,
       .row_data_bytes = 48,
       .page_gap_bytes = 40,
       .row_gap_bytes = 8},
      {.name = "shifted_by_2",
       .order = PageOrder::kHnd,
       .heads = 2,
       .row_data_bytes = 64,
       .base_shift_bytes = 2},
      {.name = "shifted_by_1",
       .order = PageOrder::kNhd,
       .heads = 2,
       .row_data_bytes = 36,
       .base_shift_bytes = 1},
  };
}

}  // namespace reprise::kernels
