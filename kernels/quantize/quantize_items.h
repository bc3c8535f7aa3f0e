// What one thread of a quantisation kernel does. The same code runs on the CPU, where tests run all
// threads one after another and compare with EncodeBlock and DecodeBlock.
//
// Elements are read and written 16 bytes at a time (kVector elements) where plan and row size allow
// it, else one by one (kVector is 2 then: two channels share a byte of int4).
//
// Thread safety: values; threads write disjoint bytes. C++17.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/block_copy/block_copy_launch.h"
#include "kernels/quantize/quant_format.h"
#include "kernels/quantize/quant_math.h"
#include "kernels/runtime/host_device.h"

namespace reprise::kernels {

inline constexpr uint32_t kNarrowVector = 2;

struct QuantLaunch {
  RunLaunch run;  // block_table: the encoded blocks, 16-byte aligned
  QuantShape shape;
  QuantLayout layout;
  bool wide = false;  // 16-byte accesses
  FastDivide row_vectors;
  FastDivide token_groups;
  FastDivide channel_groups;
  FastDivide group;
};

// REQUIRES: plan and shape are of the same blocks.
inline QuantLaunch MakeQuantLaunch(const RunLaunch& run, const QuantShape& shape) {
  QuantLaunch launch;
  launch.run = run;
  launch.shape = shape;
  launch.layout = LayoutOf(shape);
  const uint32_t vector = 16 / ElementBytes(shape.element);
  launch.wide = run.geometry.unit_bytes == 16 && shape.channels % vector == 0;
  const uint32_t chosen = launch.wide ? vector : kNarrowVector;
  launch.row_vectors = FastDivide((shape.channels - 1) / chosen + 1);
  launch.token_groups = FastDivide(launch.layout.token_groups);
  launch.channel_groups = FastDivide(launch.layout.channel_groups);
  launch.group = FastDivide(shape.group);
  return launch;
}

// One plane of one block: the engine's side and the encoded side.
struct PlaneWork {
  PagedPlane plane;
  const int64_t* pages;
  uint32_t tokens;  // that the engine has
  uint8_t* parameters;
  uint8_t* codes;
  uint32_t plane_in_layer;
  bool per_channel;
};

REPRISE_HD PlaneWork WorkOn(const QuantLaunch& launch, uint32_t block, uint32_t plane_index) {
  const uint32_t layer = plane_index / launch.shape.planes_per_layer;
  PlaneWork work;
  work.plane = launch.run.planes[plane_index];
  work.pages =
      launch.run.page_table + static_cast<uint64_t>(block) * launch.run.geometry.pages_per_block;
  work.tokens = launch.run.TokensOf(block);
  work.plane_in_layer = plane_index - layer * launch.shape.planes_per_layer;
  work.per_channel = GroupedPerChannel(launch.shape, work.plane_in_layer);
  uint8_t* encoded = launch.run.block_table[block] + layer * launch.layout.layer_bytes;
  work.parameters = encoded + launch.layout.parameters_at[work.plane_in_layer];
  work.codes = encoded + launch.layout.codes_at +
               static_cast<uint64_t>(work.plane_in_layer) * launch.shape.heads *
                   launch.shape.tokens * launch.layout.code_row_bytes;
  return work;
}

// The engine's row, or null where there is none: it is zeros then.
REPRISE_HD uint8_t* EngineRow(const QuantLaunch& launch, const PlaneWork& work, uint32_t head,
                              uint32_t token) {
  if (token >= work.tokens) return nullptr;
  const RowPlace place = PlaceRow(launch.run.geometry, work.plane, head, token);
  const int64_t page = work.pages[place.page_index];
  if (page < 0) return nullptr;
  return work.plane.base + page * work.plane.page_stride_bytes + place.engine_offset;
}

REPRISE_HD uint8_t* CodeRow(const QuantLaunch& launch, const PlaneWork& work, uint32_t head,
                            uint32_t token) {
  const uint64_t row = static_cast<uint64_t>(head) * launch.shape.tokens + token;
  return work.codes + row * launch.layout.code_row_bytes;
}

// ---- Elements and codes in memory

struct alignas(16) Words4 {
  uint32_t words[4];
};

// kVector elements from channel `first` on; those beyond the row, and all of a null row, are 0.
template <typename Element, uint32_t kVector>
REPRISE_HD void LoadElements(const uint8_t* row, uint32_t first, uint32_t channels,
                             float (&values)[kVector]) {
  using Bits = typename Element::Bits;
  if (row == nullptr) {
    REPRISE_UNROLL
    for (uint32_t i = 0; i < kVector; ++i) values[i] = 0.0f;
    return;
  }
  const Bits* at = reinterpret_cast<const Bits*>(row) + first;
  if constexpr (kVector * sizeof(Bits) == sizeof(Words4)) {
    const Words4 loaded = *reinterpret_cast<const Words4*>(at);
    Bits bits[kVector];
    memcpy(bits, &loaded, sizeof(bits));
    REPRISE_UNROLL
    for (uint32_t i = 0; i < kVector; ++i) values[i] = Element::ToFloat(bits[i]);
  } else {
    REPRISE_UNROLL
    for (uint32_t i = 0; i < kVector; ++i) {
      values[i] = first + i < channels ? Element::ToFloat(at[i]) : 0.0f;
    }
  }
}

template <typename Element, uint32_t kVector>
REPRISE_HD void StoreElements(uint8_t* row, uint32_t first, uint32_t channels,
                              const float (&values)[kVector]) {
  using Bits = typename Element::Bits;
  Bits* at = reinterpret_cast<Bits*>(row) + first;
  Bits bits[kVector];
  REPRISE_UNROLL
  for (uint32_t i = 0; i < kVector; ++i) bits[i] = Element::FromFloat(values[i]);
  if constexpr (kVector * sizeof(Bits) == sizeof(Words4)) {
    Words4 stored;
    memcpy(&stored, bits, sizeof(stored));
    *reinterpret_cast<Words4*>(at) = stored;
  } else {
    REPRISE_UNROLL
    for (uint32_t i = 0; i < kVector; ++i) {
      if (first + i < channels) at[i] = bits[i];
    }
  }
}

// kBytes codes at `at`, in one access: 1, 2, 4 or 8, to which `at` is aligned.
template <uint32_t kBytes>
REPRISE_HD uint64_t LoadCodes(const uint8_t* at) {
  if (kBytes == 8) return *reinterpret_cast<const uint64_t*>(at);
  if (kBytes == 4) return *reinterpret_cast<const uint32_t*>(at);
  if (kBytes == 2) return *reinterpret_cast<const uint16_t*>(at);
  return *at;
}

template <uint32_t kBytes>
REPRISE_HD void StoreCodes(uint8_t* at, uint64_t codes) {
  if (kBytes == 8) {
    *reinterpret_cast<uint64_t*>(at) = codes;
  } else if (kBytes == 4) {
    *reinterpret_cast<uint32_t*>(at) = static_cast<uint32_t>(codes);
  } else if (kBytes == 2) {
    *reinterpret_cast<uint16_t*>(at) = static_cast<uint16_t>(codes);
  } else {
    *at = static_cast<uint8_t>(codes);
  }
}

REPRISE_HD void ZeroBytes(uint8_t* base, uint64_t from, uint64_t to) {
  for (uint64_t at = from; at < to; ++at) base[at] = 0;
}

REPRISE_HD void ZeroParameterPadding(const QuantLaunch& launch, const PlaneWork& work) {
  const uint64_t data = launch.layout.parameter_data_bytes[work.plane_in_layer];
  ZeroBytes(work.parameters, data, PadTo16(data));
}

REPRISE_HD void ZeroCodePadding(const QuantLaunch& launch, uint8_t* code_row) {
  ZeroBytes(code_row, launch.layout.code_row_data_bytes, launch.layout.code_row_bytes);
}

// ---- fp8 and int8: `threads` threads for one head of one plane

// The largest magnitude among this thread's share.
template <typename Element, uint32_t kVector>
REPRISE_HD float LargestOfThread(const QuantLaunch& launch, const PlaneWork& work, uint32_t head,
                                 uint32_t thread, uint32_t threads) {
  const uint32_t vectors = launch.shape.tokens * launch.row_vectors.divisor();
  float largest = 0.0f;
  for (uint32_t index = thread; index < vectors; index += threads) {
    const uint32_t token = launch.row_vectors.Quotient(index);
    const uint32_t first = (index - token * launch.row_vectors.divisor()) * kVector;
    float values[kVector];
    LoadElements<Element>(EngineRow(launch, work, head, token), first, launch.shape.channels,
                          values);
    REPRISE_UNROLL
    for (uint32_t i = 0; i < kVector; ++i) {
      const float magnitude = quant::ScaleMagnitude(values[i]);
      largest = magnitude > largest ? magnitude : largest;
    }
  }
  return largest;
}

// This thread's share of a head, kept in registers between the two passes over it. REQUIRES:
// tokens * row vectors <= kHeld * threads.
template <typename Element, uint32_t kVector, uint32_t kHeld>
struct HeldShare {
  float values[kHeld][kVector];

  REPRISE_HD float Load(const QuantLaunch& launch, const PlaneWork& work, uint32_t head,
                        uint32_t thread, uint32_t threads) {
    const uint32_t vectors = launch.shape.tokens * launch.row_vectors.divisor();
    REPRISE_UNROLL
    for (uint32_t held = 0; held < kHeld; ++held) {
      const uint32_t index = thread + held * threads;
      const uint32_t token = launch.row_vectors.Quotient(index < vectors ? index : 0);
      const uint32_t first = (index - token * launch.row_vectors.divisor()) * kVector;
      const uint8_t* row = index < vectors ? EngineRow(launch, work, head, token) : nullptr;
      LoadElements<Element>(row, index < vectors ? first : 0, launch.shape.channels, values[held]);
    }
    float largest = 0.0f;
    REPRISE_UNROLL
    for (uint32_t held = 0; held < kHeld; ++held) {
      REPRISE_UNROLL
      for (uint32_t i = 0; i < kVector; ++i) {
        const float magnitude = quant::ScaleMagnitude(values[held][i]);
        largest = magnitude > largest ? magnitude : largest;
      }
    }
    return largest;
  }
};

// Given the largest magnitude of the head, writes this thread's share of codes; thread 0 the scale.
// Writes the scale of a head (thread 0) and returns its inverse.
REPRISE_HD float WriteScale(const QuantLaunch& launch, const PlaneWork& work, uint32_t head,
                            float largest, uint32_t thread) {
  const float scale = quant::ScaleOf(largest, launch.shape.codec);
  if (thread == 0) {
    reinterpret_cast<float*>(work.parameters)[head] = scale;
    if (head == 0) ZeroParameterPadding(launch, work);
  }
  return 1.0f / scale;
}

// One vector of a row of codes.
template <uint32_t kVector>
REPRISE_HD void StoreScaledCodes(const QuantLaunch& launch, uint8_t* row, uint32_t vector,
                                 float inverse, const float (&values)[kVector]) {
  uint64_t codes = 0;
  REPRISE_UNROLL
  for (uint32_t i = 0; i < kVector; i += 2) {
    const uint16_t pair =
        quant::EncodeScaledPair(values[i], values[i + 1], inverse, launch.shape.codec);
    codes |= static_cast<uint64_t>(pair) << 8 * i;
  }
  // A narrow vector's second code may lie in the padding, or beyond the row when that has none.
  const uint32_t first = vector * kVector;
  if (first + kVector <= launch.shape.channels) {
    StoreCodes<kVector>(row + first, codes);
  } else {
    row[first] = static_cast<uint8_t>(codes);
  }
  if (vector + 1 == launch.row_vectors.divisor()) ZeroCodePadding(launch, row);
}

template <typename Element, uint32_t kVector>
REPRISE_HD void EncodeScaledThread(const QuantLaunch& launch, const PlaneWork& work, uint32_t head,
                                   float largest, uint32_t thread, uint32_t threads) {
  const float inverse = WriteScale(launch, work, head, largest, thread);
  const uint32_t vectors = launch.shape.tokens * launch.row_vectors.divisor();
  for (uint32_t index = thread; index < vectors; index += threads) {
    const uint32_t token = launch.row_vectors.Quotient(index);
    const uint32_t vector = index - token * launch.row_vectors.divisor();
    const uint32_t first = vector * kVector;
    float values[kVector];
    LoadElements<Element>(EngineRow(launch, work, head, token), first, launch.shape.channels,
                          values);
    StoreScaledCodes(launch, CodeRow(launch, work, head, token), vector, inverse, values);
  }
}

// The same from what is held.
template <typename Element, uint32_t kVector, uint32_t kHeld>
REPRISE_HD void EncodeHeldThread(const QuantLaunch& launch, const PlaneWork& work, uint32_t head,
                                 float largest, uint32_t thread, uint32_t threads,
                                 const HeldShare<Element, kVector, kHeld>& share) {
  const float inverse = WriteScale(launch, work, head, largest, thread);
  const uint32_t vectors = launch.shape.tokens * launch.row_vectors.divisor();
  REPRISE_UNROLL
  for (uint32_t held = 0; held < kHeld; ++held) {
    const uint32_t index = thread + held * threads;
    if (index >= vectors) break;
    const uint32_t token = launch.row_vectors.Quotient(index);
    const uint32_t vector = index - token * launch.row_vectors.divisor();
    StoreScaledCodes(launch, CodeRow(launch, work, head, token), vector, inverse,
                     share.values[held]);
  }
}

// ---- int4

REPRISE_HD uint32_t* GroupParametersAt(const PlaneWork& work, uint64_t index) {
  return reinterpret_cast<uint32_t*>(work.parameters) + index;
}

template <uint32_t kVector>
REPRISE_HD uint32_t PackNibbles(const float (&values)[kVector],
                                const quant::GroupScale (&scales)[kVector]) {
  static_assert(kVector <= 8, "a word holds eight nibbles");
  uint32_t codes = 0;
  REPRISE_UNROLL
  for (uint32_t i = 0; i < kVector; ++i) {
    codes |= quant::EncodeGrouped(values[i], scales[i]) << 4 * i;
  }
  return codes;
}

// Keys: kVector channels of one token group of one head.
REPRISE_HD uint32_t KeyItems(const QuantLaunch& launch) {
  return launch.shape.heads * launch.layout.token_groups * launch.row_vectors.divisor();
}

template <typename Element, uint32_t kVector>
REPRISE_HD void EncodeKeyItem(const QuantLaunch& launch, const PlaneWork& work, uint32_t item) {
  const QuantShape& shape = launch.shape;
  const uint32_t column = launch.row_vectors.Quotient(item);
  const uint32_t vector = item - column * launch.row_vectors.divisor();
  const uint32_t head = launch.token_groups.Quotient(column);
  const uint32_t group = column - head * launch.token_groups.divisor();
  const uint32_t first = vector * kVector;
  const uint32_t first_token = group * shape.group;
  const uint32_t end_token =
      first_token + shape.group < shape.tokens ? first_token + shape.group : shape.tokens;
  quant::GroupBounds bounds[kVector];
  float values[kVector];
  for (uint32_t token = first_token; token < end_token; ++token) {
    LoadElements<Element>(EngineRow(launch, work, head, token), first, shape.channels, values);
    REPRISE_UNROLL
    for (uint32_t i = 0; i < kVector; ++i) bounds[i].Add(values[i]);
  }
  quant::GroupScale scales[kVector];
  uint32_t* parameters =
      GroupParametersAt(work, static_cast<uint64_t>(column) * shape.channels + first);
  REPRISE_UNROLL
  for (uint32_t i = 0; i < kVector; ++i) {
    const uint32_t packed = quant::GroupParameters(bounds[i]);
    scales[i] = quant::UnpackGroup(packed);
    if (first + i < shape.channels) parameters[i] = packed;
  }
  for (uint32_t token = first_token; token < end_token; ++token) {
    LoadElements<Element>(EngineRow(launch, work, head, token), first, shape.channels, values);
    uint8_t* row = CodeRow(launch, work, head, token);
    StoreCodes<kVector / 2>(row + first / 2, PackNibbles(values, scales));
    if (vector + 1 == launch.row_vectors.divisor()) ZeroCodePadding(launch, row);
  }
  if (item == 0) ZeroParameterPadding(launch, work);
}

// Values and latents: one channel group of one token of one head.
REPRISE_HD uint32_t TokenItems(const QuantLaunch& launch) {
  return launch.shape.heads * launch.shape.tokens * launch.layout.channel_groups;
}

template <typename Element, uint32_t kVector>
REPRISE_HD void EncodeTokenItem(const QuantLaunch& launch, const PlaneWork& work, uint32_t item) {
  const QuantShape& shape = launch.shape;
  const uint32_t row_index = launch.channel_groups.Quotient(item);
  const uint32_t group = item - row_index * launch.channel_groups.divisor();
  const uint32_t head = launch.run.geometry.block_tokens.Quotient(row_index);
  const uint32_t token = row_index - head * shape.tokens;
  const uint32_t first = group * shape.group;
  const uint32_t end = first + shape.group < shape.channels ? first + shape.group : shape.channels;
  const uint8_t* engine = EngineRow(launch, work, head, token);
  quant::GroupBounds bounds;
  float values[kVector];
  for (uint32_t channel = first; channel < end; channel += kVector) {
    LoadElements<Element>(engine, channel, shape.channels, values);
    REPRISE_UNROLL
    for (uint32_t i = 0; i < kVector; ++i) {
      if (channel + i < end) bounds.Add(values[i]);
    }
  }
  const uint32_t packed = quant::GroupParameters(bounds);
  *GroupParametersAt(work, item) = packed;
  const quant::GroupScale scale = quant::UnpackGroup(packed);
  uint8_t* row = CodeRow(launch, work, head, token);
  for (uint32_t channel = first; channel < end; channel += kVector) {
    LoadElements<Element>(engine, channel, shape.channels, values);
    uint32_t codes = 0;
    REPRISE_UNROLL
    for (uint32_t i = 0; i < kVector; ++i) {
      const uint32_t code = channel + i < end ? quant::EncodeGrouped(values[i], scale) : 0;
      codes |= code << 4 * i;
    }
    StoreCodes<kVector / 2>(row + channel / 2, codes);
  }
  if (end == shape.channels) ZeroCodePadding(launch, row);
  if (item == 0) ZeroParameterPadding(launch, work);
}

// ---- Back, under any codec: kVector channels of one token of one head

REPRISE_HD uint32_t DecodeItems(const QuantLaunch& launch) {
  return launch.shape.heads * launch.shape.tokens * launch.row_vectors.divisor();
}

// What an item is decoded from, all in registers, so that a thread has the reads of several items
// under way before it writes the first.
template <uint32_t kVector, bool kGrouped>
struct CodedItem {
  uint8_t* engine = nullptr;  // the row; null: nothing to do
  uint32_t first = 0;         // channel
  uint64_t codes = 0;
  uint32_t parameters[kGrouped ? kVector : 1];  // grouped: of each channel; else the head's scale
};

template <uint32_t kVector>
REPRISE_HD void LoadGroupParameters(const QuantLaunch& launch, const PlaneWork& work, uint32_t head,
                                    uint32_t token, uint32_t first,
                                    uint32_t (&parameters)[kVector]) {
  const QuantShape& shape = launch.shape;
  if (!work.per_channel) {
    const uint64_t row = static_cast<uint64_t>(head) * shape.tokens + token;
    const uint64_t group = row * launch.layout.channel_groups + launch.group.Quotient(first);
    const uint32_t packed = *GroupParametersAt(work, group);
    REPRISE_UNROLL
    for (uint32_t i = 0; i < kVector; ++i) parameters[i] = packed;
    return;
  }
  const uint64_t column =
      static_cast<uint64_t>(head) * launch.layout.token_groups + launch.group.Quotient(token);
  const uint32_t* from = GroupParametersAt(work, column * shape.channels + first);
  if constexpr (kVector % 4 == 0) {
    REPRISE_UNROLL
    for (uint32_t i = 0; i < kVector; i += 4) {
      const Words4 loaded = *reinterpret_cast<const Words4*>(from + i);
      memcpy(parameters + i, &loaded, sizeof(loaded));
    }
  } else {
    REPRISE_UNROLL
    for (uint32_t i = 0; i < kVector; ++i) {
      parameters[i] = first + i < shape.channels ? from[i] : 0;
    }
  }
}

template <uint32_t kVector, bool kGrouped>
REPRISE_HD CodedItem<kVector, kGrouped> LoadItem(const QuantLaunch& launch, const PlaneWork& work,
                                                 uint32_t item) {
  const QuantShape& shape = launch.shape;
  const uint32_t row_index = launch.row_vectors.Quotient(item);
  const uint32_t head = launch.run.geometry.block_tokens.Quotient(row_index);
  const uint32_t token = row_index - head * shape.tokens;
  CodedItem<kVector, kGrouped> coded;
  coded.engine = EngineRow(launch, work, head, token);
  coded.first = (item - row_index * launch.row_vectors.divisor()) * kVector;
  const uint8_t* row = CodeRow(launch, work, head, token);
  if constexpr (kGrouped) {
    coded.codes = LoadCodes<kVector / 2>(row + coded.first / 2);
    LoadGroupParameters(launch, work, head, token, coded.first, coded.parameters);
  } else {
    // A row's last narrow vector may have one code only.
    coded.codes = coded.first + kVector <= shape.channels ? LoadCodes<kVector>(row + coded.first)
                                                          : row[coded.first];
    coded.parameters[0] = reinterpret_cast<const uint32_t*>(work.parameters)[head];
  }
  return coded;
}

template <typename Element, uint32_t kVector, bool kGrouped>
REPRISE_HD void StoreItem(const QuantLaunch& launch, const CodedItem<kVector, kGrouped>& coded) {
  if (coded.engine == nullptr) return;
  float values[kVector];
  REPRISE_UNROLL
  for (uint32_t i = 0; i < kVector; ++i) {
    if constexpr (kGrouped) {
      values[i] = quant::DecodeGrouped(static_cast<uint32_t>(coded.codes >> 4 * i) & 15u,
                                       quant::UnpackGroup(coded.parameters[i]));
    } else {
      values[i] = quant::DecodeScaled(static_cast<uint8_t>(coded.codes >> 8 * i),
                                      quant::FloatOf(coded.parameters[0]), launch.shape.codec);
    }
  }
  StoreElements<Element>(coded.engine, coded.first, launch.shape.channels, values);
}

template <typename Element, uint32_t kVector>
REPRISE_HD void DecodeItem(const QuantLaunch& launch, const PlaneWork& work, uint32_t item) {
  if (launch.shape.codec == Codec::kInt4) {
    StoreItem<Element>(launch, LoadItem<kVector, true>(launch, work, item));
  } else {
    StoreItem<Element>(launch, LoadItem<kVector, false>(launch, work, item));
  }
}

}  // namespace reprise::kernels
