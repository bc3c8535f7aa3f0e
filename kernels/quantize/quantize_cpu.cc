#ifdef __x86_64__
#include <cpuid.h>
#endif

#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/quantize/quant_math.h"
#include "kernels/quantize/quantize.h"
#include "kernels/quantize/quantize_isa.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"

namespace reprise::kernels {
namespace {

#ifdef __x86_64__
// Conversions of 16-bit floats, which not every compiler's __builtin_cpu_supports knows.
bool HasF16c() {
  uint32_t a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

struct UsableIsas {
  UsableIsas() {
    int count = 0;
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2") && HasF16c()) isas[count++] = &kQuantizeAvx2;
#endif
    isas[count++] = &kQuantizeScalar;
  }
  const QuantizeIsa* isas[3] = {};
};

const QuantizeIsa& FastestIsa() {
  static const QuantizeIsa* const fastest = UsableQuantizeIsas()[0];
  return *fastest;
}

// Calls visit(head, its numbers, its parameters, its codes) for every head of every plane of every
// layer.
template <typename Plain, typename Encoded, typename Visit>
void ForEachHead(const QuantShape& shape, const QuantLayout& layout, Plain* plain, Encoded* encoded,
                 Visit visit) {
  QuantHead head;
  head.codec = shape.codec;
  head.element = shape.element;
  head.group = shape.group;
  head.tokens = shape.tokens;
  head.channels = shape.channels;
  head.row_bytes = layout.row_bytes;
  head.code_row_bytes = layout.code_row_bytes;
  for (uint32_t layer = 0; layer < shape.layers; ++layer) {
    Encoded* codes = encoded + layout.codes_at;
    for (uint32_t plane = 0; plane < shape.planes_per_layer; ++plane) {
      head.per_channel = GroupedPerChannel(shape, plane);
      Encoded* parameters = encoded + layout.parameters_at[plane];
      for (uint32_t i = 0; i < shape.heads; ++i) {
        visit(head, plain, parameters, codes);
        plain += shape.tokens * layout.row_bytes;
        codes += shape.tokens * layout.code_row_bytes;
        parameters += layout.parameter_data_bytes[plane] / shape.heads;
      }
    }
    encoded += layout.layer_bytes;
  }
}

// Zeros after the `data_bytes` of each of `rows` rows.
void ZeroRowPadding(uint8_t* first_row, uint64_t rows, uint64_t row_bytes, uint64_t data_bytes) {
  if (data_bytes == row_bytes) return;
  for (uint64_t row = 0; row < rows; ++row) {
    std::memset(first_row + row * row_bytes + data_bytes, 0, row_bytes - data_bytes);
  }
}

void ZeroEncodedPadding(const QuantShape& shape, const QuantLayout& layout, uint8_t* encoded) {
  const uint64_t rows = uint64_t{shape.planes_per_layer} * shape.heads * shape.tokens;
  for (uint32_t layer = 0; layer < shape.layers; ++layer, encoded += layout.layer_bytes) {
    for (uint32_t plane = 0; plane < shape.planes_per_layer; ++plane) {
      const uint64_t data = layout.parameter_data_bytes[plane];
      ZeroRowPadding(encoded + layout.parameters_at[plane], 1, PadTo16(data), data);
    }
    ZeroRowPadding(encoded + layout.codes_at, rows, layout.code_row_bytes,
                   layout.code_row_data_bytes);
  }
}

}  // namespace

absl::StatusOr<QuantShape> WithCodec(QuantShape shape, absl::string_view codec_name) {
  shape.group = kQuantGroup;
  if (codec_name == "fp8_e4m3") {
    shape.codec = Codec::kFp8E4M3;
  } else if (codec_name == "int8") {
    shape.codec = Codec::kInt8;
  } else if (codec_name == "int4") {
    shape.codec = Codec::kInt4;
  } else if (codec_name == "int4_g64") {
    shape.codec = Codec::kInt4;
    shape.group = kQuantGroupMax;
  } else {
    return Refusal(
        absl::StatusCode::kInvalidArgument, "CODEC_UNKNOWN",
        absl::StrCat("codec is \"", codec_name, "\"; use fp8_e4m3, int8, int4 or int4_g64"));
  }
  return shape;
}

const char* QuantFault(const QuantShape& shape) {
  if (shape.layers == 0 || shape.layers > limits::kLayersMax)
    return "layers is 0 or beyond a cache spec's limit";
  if (shape.planes_per_layer == 0 || shape.planes_per_layer > kPlanesMax) {
    return "planes_per_layer is neither 2 (K and V) nor 1 (MLA)";
  }
  if (shape.heads == 0 || shape.heads > limits::kKvHeadsMax)
    return "heads is 0 or beyond a cache spec's limit";
  if (shape.tokens == 0 || shape.tokens > limits::kBlockTokensMax)
    return "tokens is 0 or beyond a cache spec's limit";
  if (shape.channels == 0 || shape.channels > limits::kHeadDimMax)
    return "channels is 0 or beyond a cache spec's limit";
  if (shape.group != kQuantGroup && shape.group != kQuantGroupMax)
    return "group is neither 32 nor 64";
  return "";
}

uint64_t EncodedBlockBytes(const QuantShape& shape) {
  return LayoutOf(shape).block_bytes;
}

const QuantizeIsa* const* UsableQuantizeIsas() {
  static const UsableIsas usable;
  return usable.isas;
}

void EncodeBlockWith(const QuantizeIsa& isa, const QuantShape& shape, const uint8_t* block,
                     uint8_t* encoded) {
  const QuantLayout layout = LayoutOf(shape);
  ForEachHead(
      shape, layout, block, encoded,
      [&](const QuantHead& head, const uint8_t* plain, uint8_t* parameters, uint8_t* codes) {
        if (shape.codec == Codec::kInt4) return isa.encode_grouped(head, plain, parameters, codes);
        const float scale = quant::ScaleOf(isa.largest(head, plain), shape.codec);
        std::memcpy(parameters, &scale, sizeof(scale));
        isa.encode_scaled(head, scale, plain, codes);
      });
  ZeroEncodedPadding(shape, layout, encoded);
}

void DecodeBlockWith(const QuantizeIsa& isa, const QuantShape& shape, const uint8_t* encoded,
                     uint8_t* block) {
  const QuantLayout layout = LayoutOf(shape);
  ForEachHead(
      shape, layout, block, encoded,
      [&](const QuantHead& head, uint8_t* plain, const uint8_t* parameters, const uint8_t* codes) {
        if (shape.codec == Codec::kInt4) return isa.decode_grouped(head, parameters, codes, plain);
        float scale;
        std::memcpy(&scale, parameters, sizeof(scale));
        isa.decode_scaled(head, scale, codes, plain);
      });
  ZeroRowPadding(block, layout.plain_block_bytes / layout.row_bytes, layout.row_bytes,
                 shape.channels * layout.element_bytes);
}

void EncodeBlock(const QuantShape& shape, const uint8_t* block, uint8_t* encoded) {
  EncodeBlockWith(FastestIsa(), shape, block, encoded);
}

void DecodeBlock(const QuantShape& shape, const uint8_t* encoded, uint8_t* block) {
  DecodeBlockWith(FastestIsa(), shape, encoded, block);
}

}  // namespace reprise::kernels
