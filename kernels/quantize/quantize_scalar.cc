// One number at a time, as quant_math.h defines it: what every other form must agree with.
#include <algorithm>
#include <cstring>

#include "kernels/quantize/quant_math.h"
#include "kernels/quantize/quantize_isa.h"

namespace reprise::kernels {
namespace {

using quant::GroupBounds;
using quant::GroupScale;

template <typename Element>
float Load(const QuantHead& head, const uint8_t* plain, uint32_t token, uint32_t channel) {
  typename Element::Bits bits;
  std::memcpy(&bits, plain + token * head.row_bytes + channel * sizeof(bits), sizeof(bits));
  return Element::ToFloat(bits);
}

template <typename Element>
void Store(const QuantHead& head, uint8_t* plain, uint32_t token, uint32_t channel, float value) {
  const typename Element::Bits bits = Element::FromFloat(value);
  std::memcpy(plain + token * head.row_bytes + channel * sizeof(bits), &bits, sizeof(bits));
}

// Calls visit(the element type's struct of quant_math.h).
template <typename Visit>
void WithElement(ElementType element, Visit visit) {
  switch (element) {
    case ElementType::kF32:
      return visit(quant::F32{});
    case ElementType::kF16:
      return visit(quant::F16{});
    case ElementType::kBf16:
      return visit(quant::Bf16{});
  }
}

float Largest(const QuantHead& head, const uint8_t* plain) {
  float largest = 0;
  WithElement(head.element, [&](auto element) {
    for (uint32_t token = 0; token < head.tokens; ++token) {
      for (uint32_t channel = 0; channel < head.channels; ++channel) {
        const float x = Load<decltype(element)>(head, plain, token, channel);
        largest = std::max(largest, quant::ScaleMagnitude(x));
      }
    }
  });
  return largest;
}

void EncodeScaled(const QuantHead& head, float scale, const uint8_t* plain, uint8_t* codes) {
  const float inverse = 1.0f / scale;
  WithElement(head.element, [&](auto element) {
    for (uint32_t token = 0; token < head.tokens; ++token) {
      uint8_t* row = codes + token * head.code_row_bytes;
      for (uint32_t channel = 0; channel < head.channels; ++channel) {
        const float x = Load<decltype(element)>(head, plain, token, channel);
        row[channel] = quant::EncodeScaled(x, inverse, head.codec);
      }
    }
  });
}

void DecodeScaled(const QuantHead& head, float scale, const uint8_t* codes, uint8_t* plain) {
  WithElement(head.element, [&](auto element) {
    for (uint32_t token = 0; token < head.tokens; ++token) {
      const uint8_t* row = codes + token * head.code_row_bytes;
      for (uint32_t channel = 0; channel < head.channels; ++channel) {
        const float x = quant::DecodeScaled(row[channel], scale, head.codec);
        Store<decltype(element)>(head, plain, token, channel, x);
      }
    }
  });
}

// The group that a number is in, as an index of the head's parameters.
uint64_t GroupIndex(const QuantHead& head, uint32_t token, uint32_t channel) {
  if (head.per_channel) return uint64_t{token / head.group} * head.channels + channel;
  const uint32_t channel_groups = (head.channels - 1) / head.group + 1;
  return uint64_t{token} * channel_groups + channel / head.group;
}

template <typename Element>
void EncodeGroup(const QuantHead& head, uint32_t first_token, uint32_t first_channel,
                 const uint8_t* plain, uint8_t* parameters, uint8_t* codes) {
  const uint32_t end_token =
      std::min(first_token + (head.per_channel ? head.group : 1), head.tokens);
  const uint32_t end_channel =
      std::min(first_channel + (head.per_channel ? 1 : head.group), head.channels);
  GroupBounds bounds;
  for (uint32_t token = first_token; token < end_token; ++token) {
    for (uint32_t channel = first_channel; channel < end_channel; ++channel) {
      bounds.Add(Load<Element>(head, plain, token, channel));
    }
  }
  const uint32_t packed = quant::GroupParameters(bounds);
  std::memcpy(parameters + 4 * GroupIndex(head, first_token, first_channel), &packed,
              sizeof(packed));
  const GroupScale scale = quant::UnpackGroup(packed);
  for (uint32_t token = first_token; token < end_token; ++token) {
    uint8_t* row = codes + token * head.code_row_bytes;
    for (uint32_t channel = first_channel; channel < end_channel; ++channel) {
      const uint32_t code = quant::EncodeGrouped(Load<Element>(head, plain, token, channel), scale);
      // The even channel of a byte is there before the odd one, whichever way groups run.
      const uint32_t other = channel % 2 == 0 ? 0 : row[channel / 2];
      row[channel / 2] = static_cast<uint8_t>(other | code << (channel % 2 * 4));
    }
  }
}

void EncodeGrouped(const QuantHead& head, const uint8_t* plain, uint8_t* parameters,
                   uint8_t* codes) {
  const uint32_t token_step = head.per_channel ? head.group : 1;
  const uint32_t channel_step = head.per_channel ? 1 : head.group;
  WithElement(head.element, [&](auto element) {
    for (uint32_t token = 0; token < head.tokens; token += token_step) {
      for (uint32_t channel = 0; channel < head.channels; channel += channel_step) {
        EncodeGroup<decltype(element)>(head, token, channel, plain, parameters, codes);
      }
    }
  });
}

void DecodeGrouped(const QuantHead& head, const uint8_t* parameters, const uint8_t* codes,
                   uint8_t* plain) {
  WithElement(head.element, [&](auto element) {
    for (uint32_t token = 0; token < head.tokens; ++token) {
      const uint8_t* row = codes + token * head.code_row_bytes;
      for (uint32_t channel = 0; channel < head.channels; ++channel) {
        uint32_t packed;
        std::memcpy(&packed, parameters + 4 * GroupIndex(head, token, channel), sizeof(packed));
        const uint32_t code = row[channel / 2] >> (channel % 2 * 4) & 15u;
        const float x = quant::DecodeGrouped(code, quant::UnpackGroup(packed));
        Store<decltype(element)>(head, plain, token, channel, x);
      }
    }
  });
}

}  // namespace

const QuantizeIsa kQuantizeScalar = {"scalar",     Largest,       EncodeScaled,
                                     DecodeScaled, EncodeGrouped, DecodeGrouped};

}  // namespace reprise::kernels
