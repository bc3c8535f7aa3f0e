// The codecs as one instruction set runs them: private to this folder.
//
// What there is to compute, a head at a time, is behind function pointers, so that quantize_cpu.cc
// walks a block once for all instruction sets and chooses among them at run time. The scalar code
// (quantize_scalar.cc, over quant_math.h) is what the others are tested against.
//
// Invariants: every instruction set gives the same bytes, whatever the input.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>

#include "kernels/quantize/quant_format.h"

namespace reprise::kernels {

// One head of one plane of one layer: `tokens` rows of `channels` numbers. Padding of rows is
// neither read nor written.
struct QuantHead {
  Codec codec = Codec::kFp8E4M3;
  ElementType element = ElementType::kBf16;
  uint32_t group = kQuantGroup;  // int4 only, like per_channel
  bool per_channel = false;      // groups run over tokens, not over channels
  uint32_t tokens = 0;
  uint32_t channels = 0;
  uint64_t row_bytes = 0;  // from one row to the next: of numbers
  uint64_t code_row_bytes = 0;
};

struct QuantizeIsa {
  const char* name;
  // fp8_e4m3 and int8. The largest finite magnitude, and 0 where there is none.
  float (*largest)(const QuantHead& head, const uint8_t* plain);
  void (*encode_scaled)(const QuantHead& head, float scale, const uint8_t* plain, uint8_t* codes);
  void (*decode_scaled)(const QuantHead& head, float scale, const uint8_t* codes, uint8_t* plain);
  // int4. `parameters` are those of the head's groups.
  void (*encode_grouped)(const QuantHead& head, const uint8_t* plain, uint8_t* parameters,
                         uint8_t* codes);
  void (*decode_grouped)(const QuantHead& head, const uint8_t* parameters, const uint8_t* codes,
                         uint8_t* plain);
};

extern const QuantizeIsa kQuantizeScalar;
#ifdef __x86_64__
extern const QuantizeIsa kQuantizeAvx2;
#endif

// Those that this CPU can run, fastest first; the scalar one is the last, then a null pointer.
const QuantizeIsa* const* UsableQuantizeIsas();

// EncodeBlock and DecodeBlock (quantize.h) by the instruction set of the caller's choice.
void EncodeBlockWith(const QuantizeIsa& isa, const QuantShape& shape, const uint8_t* block,
                     uint8_t* encoded);
void DecodeBlockWith(const QuantizeIsa& isa, const QuantShape& shape, const uint8_t* encoded,
                     uint8_t* block);

}  // namespace reprise::kernels
