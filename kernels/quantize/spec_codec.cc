#include "kernels/quantize/spec_codec.h"

#include "absl/strings/str_cat.h"
#include "kernels/quantize/quantize.h"
#include "proto/types/refusal.h"

namespace reprise::kernels {
namespace {

std::optional<ElementType> ElementOf(DataType dtype) {
  switch (dtype) {
    case DataType::kF32:
      return ElementType::kF32;
    case DataType::kF16:
      return ElementType::kF16;
    case DataType::kBf16:
      return ElementType::kBf16;
    case DataType::kUnspecified:
    case DataType::kF8E4M3:
    case DataType::kF8E5M2:
    case DataType::kI8:
      return std::nullopt;
  }
  return std::nullopt;
}

}  // namespace

absl::StatusOr<std::optional<QuantShape>> CodecOf(const CacheSpec& spec) {
  if (spec.codec.empty() || spec.codec == "none") return std::nullopt;
  const BlockLayout layout = LayoutOf(spec);
  QuantShape shape;
  shape.layers = layout.layers;
  shape.planes_per_layer = layout.planes;
  shape.heads = layout.heads;
  shape.tokens = layout.tokens;
  shape.channels = spec.head_dim;
  absl::StatusOr<QuantShape> chosen = WithCodec(shape, spec.codec);
  if (!chosen.ok()) return chosen.status();
  const std::optional<ElementType> element = ElementOf(spec.dtype);
  if (!element.has_value()) {
    return Refusal(absl::StatusCode::kInvalidArgument, "CODEC_DTYPE",
                   absl::StrCat("codec = \"", spec.codec, "\" encodes f32, f16 and bf16, not ",
                                DataTypeName(spec.dtype), ": leave codec unset"));
  }
  chosen->element = *element;
  return std::optional(*chosen);
}

BlockLayout StoredLayoutOf(const CacheSpec& spec, const std::optional<QuantShape>& codec) {
  BlockLayout layout = LayoutOf(spec);
  if (codec.has_value()) {
    const QuantLayout encoded = LayoutOf(*codec);
    layout.row_data_bytes = layout.row_bytes = layout.plane_bytes = 0;
    layout.layer_bytes = encoded.layer_bytes;
    layout.block_bytes = encoded.block_bytes;
  }
  return layout;
}

}  // namespace reprise::kernels
