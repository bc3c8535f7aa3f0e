// K/V shapes of published models, per tensor-parallel rank of one, as their configurations give
// them. Mixtures of experts change nothing here: K/V is attention's.
#pragma once

#include <vector>

#include "kernels/quantize/quant_format.h"
#include "tests/unit/kernels/paged_engine.h"

namespace reprise::kernels {

// bf16 rows; the engine's pages are the test's.
inline std::vector<EngineShape> ModelShapes() {
  return {
      {.name = "Llama3_8B_nhd",
       .order = PageOrder::kNhd,
       .layers = 32,
       .heads = 8,
       .row_data_bytes = 256},
      {.name = "Llama3_8B_hnd",
       .order = PageOrder::kHnd,
       .layers = 32,
       .heads = 8,
       .row_data_bytes = 256},
      {.name = "Llama3_8B_packed_small_pages",
       .order = PageOrder::kNhd,
       .packed = true,
       .layers = 32,
       .heads = 8,
       .row_data_bytes = 256,
       .page_tokens = 16,
       .block_tokens = 64},
      {.name = "Llama3_70B",
       .order = PageOrder::kHnd,
       .layers = 80,
       .heads = 8,
       .row_data_bytes = 256},
      {.name = "Llama3_70B_tp8",
       .order = PageOrder::kNhd,
       .layers = 80,
       .heads = 1,
       .row_data_bytes = 256},
      {.name = "Qwen3_235B_A22B",
       .order = PageOrder::kNhd,
       .layers = 94,
       .heads = 4,
       .row_data_bytes = 256},
      {.name = "Mixtral_8x7B",
       .order = PageOrder::kHnd,
       .packed = true,
       .layers = 32,
       .heads = 8,
       .row_data_bytes = 256},
      {.name = "DeepSeek_V3_mla",
       .order = PageOrder::kHnd,
       .planes_per_layer = 1,
       .layers = 61,
       .heads = 1,
       .row_data_bytes = 1152,
       .page_tokens = 64,
       .block_tokens = 64},
      {.name = "DeepSeek_V3_mla_single_token_pages",
       .order = PageOrder::kHnd,
       .planes_per_layer = 1,
       .layers = 61,
       .heads = 1,
       .row_data_bytes = 1152,
       .page_tokens = 1,
       .block_tokens = 16,
       .pages = 96},
      // The 52 of Gemma-3 27B's 62 layers that look 1024 tokens back: pages before the window are
      // gone.
      {.name = "Gemma3_27B_sliding",
       .order = PageOrder::kNhd,
       .layers = 52,
       .heads = 16,
       .row_data_bytes = 256,
       .pages = 12},
      {.name = "Gemma3_1B",
       .order = PageOrder::kNhd,
       .layers = 26,
       .heads = 1,
       .row_data_bytes = 512},
  };
}

inline std::vector<EngineShape> GpuShapes() {
  std::vector<EngineShape> shapes = EngineShapes();
  const std::vector<EngineShape> models = ModelShapes();
  shapes.insert(shapes.end(), models.begin(), models.end());
  return shapes;
}

}  // namespace reprise::kernels
