#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/quantize/quant_math.h"
#include "kernels/quantize/quantize.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"

namespace reprise::kernels {
namespace {

using quant::GroupBounds;
using quant::GroupScale;

// One plane of one layer: [head][token][channel] on one side, parameters and codes on the other.
template <typename Element, typename Plain, typename Encoded>
struct PlaneView {
  const QuantShape& shape;
  const QuantLayout& layout;
  Plain* plain;         // uint8_t or const
  Encoded* parameters;  // likewise
  Encoded* codes;

  uint64_t Row(uint32_t head, uint32_t token) const {
    return uint64_t{head} * shape.tokens + token;
  }

  float Load(uint32_t head, uint32_t token, uint32_t channel) const {
    typename Element::Bits bits;
    std::memcpy(&bits, plain + Row(head, token) * layout.row_bytes + channel * sizeof(bits),
                sizeof(bits));
    return Element::ToFloat(bits);
  }
  void Store(uint32_t head, uint32_t token, uint32_t channel, float value) const {
    const typename Element::Bits bits = Element::FromFloat(value);
    std::memcpy(plain + Row(head, token) * layout.row_bytes + channel * sizeof(bits), &bits,
                sizeof(bits));
  }
  Encoded* CodeRow(uint32_t head, uint32_t token) const {
    return codes + Row(head, token) * layout.code_row_bytes;
  }
};

template <typename Element>
using EncodeView = PlaneView<Element, const uint8_t, uint8_t>;
template <typename Element>
using DecodeView = PlaneView<Element, uint8_t, const uint8_t>;

template <typename Element>
void EncodeScaledPlane(const EncodeView<Element>& view) {
  const QuantShape& shape = view.shape;
  for (uint32_t head = 0; head < shape.heads; ++head) {
    float largest = 0;
    for (uint32_t token = 0; token < shape.tokens; ++token) {
      for (uint32_t channel = 0; channel < shape.channels; ++channel) {
        largest = std::max(largest, quant::ScaleMagnitude(view.Load(head, token, channel)));
      }
    }
    const float scale = quant::ScaleOf(largest, shape.codec);
    std::memcpy(view.parameters + 4 * head, &scale, sizeof(scale));
    const float inverse = 1.0f / scale;
    for (uint32_t token = 0; token < shape.tokens; ++token) {
      uint8_t* row = view.CodeRow(head, token);
      for (uint32_t channel = 0; channel < shape.channels; ++channel) {
        row[channel] = quant::EncodeScaled(view.Load(head, token, channel), inverse, shape.codec);
      }
    }
  }
}

template <typename Element>
void DecodeScaledPlane(const DecodeView<Element>& view) {
  const QuantShape& shape = view.shape;
  for (uint32_t head = 0; head < shape.heads; ++head) {
    float scale;
    std::memcpy(&scale, view.parameters + 4 * head, sizeof(scale));
    for (uint32_t token = 0; token < shape.tokens; ++token) {
      const uint8_t* row = view.CodeRow(head, token);
      for (uint32_t channel = 0; channel < shape.channels; ++channel) {
        view.Store(head, token, channel, quant::DecodeScaled(row[channel], scale, shape.codec));
      }
    }
  }
}

// The group that a number of a plane is in, as an index of the plane's parameters.
uint64_t GroupIndex(const QuantShape& shape, const QuantLayout& layout, bool per_channel,
                    uint64_t row, uint32_t channel) {
  if (!per_channel) return row * layout.channel_groups + channel / shape.group;
  const uint64_t head = row / shape.tokens;
  const uint64_t token = row % shape.tokens;
  return (head * layout.token_groups + token / shape.group) * shape.channels + channel;
}

template <typename Element>
void EncodeGroup(const EncodeView<Element>& view, uint32_t head, uint32_t first_token,
                 uint32_t end_token, uint32_t first_channel, uint32_t end_channel, uint64_t index) {
  GroupBounds bounds;
  for (uint32_t token = first_token; token < end_token; ++token) {
    for (uint32_t channel = first_channel; channel < end_channel; ++channel) {
      bounds.Add(view.Load(head, token, channel));
    }
  }
  const uint32_t parameters = quant::GroupParameters(bounds);
  std::memcpy(view.parameters + 4 * index, &parameters, sizeof(parameters));
  const GroupScale scale = quant::UnpackGroup(parameters);
  for (uint32_t token = first_token; token < end_token; ++token) {
    uint8_t* row = view.CodeRow(head, token);
    for (uint32_t channel = first_channel; channel < end_channel; ++channel) {
      const uint32_t code = quant::EncodeGrouped(view.Load(head, token, channel), scale);
      row[channel / 2] |= static_cast<uint8_t>(code << (channel % 2 * 4));
    }
  }
}

template <typename Element>
void EncodeGroupedPlane(const EncodeView<Element>& view, bool per_channel) {
  const QuantShape& shape = view.shape;
  const uint32_t token_step = per_channel ? shape.group : 1;
  const uint32_t channel_step = per_channel ? 1 : shape.group;
  for (uint32_t head = 0; head < shape.heads; ++head) {
    for (uint32_t token = 0; token < shape.tokens; token += token_step) {
      for (uint32_t channel = 0; channel < shape.channels; channel += channel_step) {
        EncodeGroup(view, head, token, std::min(token + token_step, shape.tokens), channel,
                    std::min(channel + channel_step, shape.channels),
                    GroupIndex(shape, view.layout, per_channel, view.Row(head, token), channel));
      }
    }
  }
}

template <typename Element>
void DecodeGroupedPlane(const DecodeView<Element>& view, bool per_channel) {
  const QuantShape& shape = view.shape;
  for (uint32_t head = 0; head < shape.heads; ++head) {
    for (uint32_t token = 0; token < shape.tokens; ++token) {
      const uint8_t* row = view.CodeRow(head, token);
      for (uint32_t channel = 0; channel < shape.channels; ++channel) {
        const uint64_t index =
            GroupIndex(shape, view.layout, per_channel, view.Row(head, token), channel);
        uint32_t parameters;
        std::memcpy(&parameters, view.parameters + 4 * index, sizeof(parameters));
        const uint32_t code = row[channel / 2] >> (channel % 2 * 4) & 15u;
        view.Store(head, token, channel,
                   quant::DecodeGrouped(code, quant::UnpackGroup(parameters)));
      }
    }
  }
}

// Calls visit(plane view, per_channel) for every plane of every layer.
template <typename Element, typename Plain, typename Encoded, typename Visit>
void ForEachPlane(const QuantShape& shape, Plain* plain, Encoded* encoded, Visit visit) {
  const QuantLayout layout = LayoutOf(shape);
  const uint64_t rows = uint64_t{shape.heads} * shape.tokens;
  for (uint32_t layer = 0; layer < shape.layers; ++layer) {
    Encoded* encoded_layer = encoded + layer * layout.layer_bytes;
    for (uint32_t plane = 0; plane < shape.planes_per_layer; ++plane) {
      const uint64_t index = uint64_t{layer} * shape.planes_per_layer + plane;
      visit(
          PlaneView<Element, Plain, Encoded>{
              shape, layout, plain + index * rows * layout.row_bytes,
              encoded_layer + layout.parameters_at[plane],
              encoded_layer + layout.codes_at + plane * rows * layout.code_row_bytes},
          GroupedPerChannel(shape, plane));
    }
  }
}

template <typename Element>
void Encode(const QuantShape& shape, const uint8_t* block, uint8_t* encoded) {
  ForEachPlane<Element>(shape, block, encoded,
                        [&](const EncodeView<Element>& view, bool per_channel) {
                          if (shape.codec == Codec::kInt4) {
                            EncodeGroupedPlane(view, per_channel);
                          } else {
                            EncodeScaledPlane(view);
                          }
                        });
}

template <typename Element>
void Decode(const QuantShape& shape, const uint8_t* encoded, uint8_t* block) {
  ForEachPlane<Element>(shape, block, encoded,
                        [&](const DecodeView<Element>& view, bool per_channel) {
                          if (shape.codec == Codec::kInt4) {
                            DecodeGroupedPlane(view, per_channel);
                          } else {
                            DecodeScaledPlane(view);
                          }
                        });
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

void EncodeBlock(const QuantShape& shape, const uint8_t* block, uint8_t* encoded) {
  std::memset(encoded, 0, EncodedBlockBytes(shape));
  switch (shape.element) {
    case ElementType::kF32:
      return Encode<quant::F32>(shape, block, encoded);
    case ElementType::kF16:
      return Encode<quant::F16>(shape, block, encoded);
    case ElementType::kBf16:
      return Encode<quant::Bf16>(shape, block, encoded);
  }
}

void DecodeBlock(const QuantShape& shape, const uint8_t* encoded, uint8_t* block) {
  std::memset(block, 0, LayoutOf(shape).plain_block_bytes);
  switch (shape.element) {
    case ElementType::kF32:
      return Decode<quant::F32>(shape, encoded, block);
    case ElementType::kF16:
      return Decode<quant::F16>(shape, encoded, block);
    case ElementType::kBf16:
      return Decode<quant::Bf16>(shape, encoded, block);
  }
}

}  // namespace reprise::kernels
