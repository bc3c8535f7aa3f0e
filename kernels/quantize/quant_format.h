// What an encoded block looks like: the sizes and places of codes and parameters under each codec.
//
// A canonical block [layer][plane][head][token][row] (proto/types/cache_spec.h) is encoded layer by
// layer, so that one layer is again one contiguous range. A layer is:
//
//   - the parameters of plane 0, then those of plane 1 if there is one, each padded to 16 bytes
//     with zeros;
//   - the codes [plane][head][token][row], every row padded to 16 bytes with zeros.
//
// Parameters and codes are little-endian:
//
//   - fp8_e4m3 and int8: one f32 scale per head. A code is 1 byte.
//
//   - int4: a code is 4 bits, two neighbouring channels in a byte, the even one in the low half. A
//     group's parameters are two f16: step, then low. Keys (plane 0 of two) are grouped per channel
//     over tokens, [head][token group][channel]; values, and the latent of MLA, per token over
//     channels, [head][token][channel group]. Groups have `group` members, and the last of a row or
//     column the rest. After KIVI (Liu et al., "KIVI: a tuning-free asymmetric 2bit quantization
//     for KV cache", ICML 2024): keys have outlier channels, values do not.
//
// Thread safety: values; pure functions. C++17.
#pragma once

#include <cstdint>

#include "kernels/runtime/host_device.h"

namespace reprise::kernels {

enum class Codec : uint8_t { kFp8E4M3 = 1, kInt8 = 2, kInt4 = 3 };
enum class ElementType : uint8_t { kF32 = 1, kF16 = 2, kBf16 = 3 };

inline constexpr uint32_t kQuantGroup = 32;     // of codec "int4"
inline constexpr uint32_t kQuantGroupMax = 64;  // of codec "int4_g64"
inline constexpr uint32_t kPlanesMax = 2;

struct QuantShape {
  Codec codec = Codec::kFp8E4M3;
  uint32_t group = kQuantGroup;  // int4 only
  ElementType element = ElementType::kBf16;
  uint32_t layers = 0;
  uint32_t planes_per_layer = 0;  // 2: K and V; 1: a latent
  uint32_t heads = 0;
  uint32_t tokens = 0;    // of a block
  uint32_t channels = 0;  // of a row: head_dim or latent size
};

struct QuantLayout {
  // Of a canonical block.
  uint64_t element_bytes = 0;
  uint64_t row_bytes = 0;
  uint64_t plain_block_bytes = 0;
  // Of an encoded block.
  uint64_t parameters_at[kPlanesMax] = {};  // in a layer
  uint64_t parameter_data_bytes[kPlanesMax] = {};
  uint64_t codes_at = 0;  // in a layer
  uint64_t code_row_data_bytes = 0;
  uint64_t code_row_bytes = 0;
  uint64_t layer_bytes = 0;
  uint64_t block_bytes = 0;
  uint32_t token_groups = 0;    // of a column of keys
  uint32_t channel_groups = 0;  // of a row of values
};

REPRISE_HD uint64_t PadTo16(uint64_t bytes) {
  return (bytes + 15) / 16 * 16;
}

inline constexpr uint32_t ElementBytes(ElementType element) {
  return element == ElementType::kF32 ? 4 : 2;
}

// Whether a plane's groups run over tokens (keys) rather than channels.
REPRISE_HD bool GroupedPerChannel(const QuantShape& shape, uint32_t plane_in_layer) {
  return shape.planes_per_layer == 2 && plane_in_layer == 0;
}

inline QuantLayout LayoutOf(const QuantShape& shape) {
  QuantLayout layout;
  layout.element_bytes = ElementBytes(shape.element);
  layout.row_bytes = PadTo16(shape.channels * layout.element_bytes);
  const uint64_t rows = uint64_t{shape.heads} * shape.tokens;
  layout.plain_block_bytes =
      uint64_t{shape.layers} * shape.planes_per_layer * rows * layout.row_bytes;
  layout.token_groups = (shape.tokens - 1) / shape.group + 1;
  layout.channel_groups = (shape.channels - 1) / shape.group + 1;
  for (uint32_t plane = 0; plane < shape.planes_per_layer; ++plane) {
    uint64_t parameters = shape.heads;
    if (shape.codec == Codec::kInt4) {
      parameters *= GroupedPerChannel(shape, plane)
                        ? uint64_t{layout.token_groups} * shape.channels
                        : uint64_t{shape.tokens} * layout.channel_groups;
    }
    layout.parameters_at[plane] = layout.codes_at;
    layout.parameter_data_bytes[plane] = 4 * parameters;
    layout.codes_at += PadTo16(4 * parameters);
  }
  layout.code_row_data_bytes =
      shape.codec == Codec::kInt4 ? (shape.channels + 1) / 2 : shape.channels;
  layout.code_row_bytes = PadTo16(layout.code_row_data_bytes);
  layout.layer_bytes = layout.codes_at + shape.planes_per_layer * rows * layout.code_row_bytes;
  layout.block_bytes = shape.layers * layout.layer_bytes;
  return layout;
}

}  // namespace reprise::kernels
