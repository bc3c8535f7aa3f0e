// Codecs that make blocks smaller and lose a little: what a cache spec's `codec` field names.
//
// Codec names: "fp8_e4m3", "int8", "int4" (groups of 32), "int4_g64" (groups of 64). The layout of
// an encoded block is in quant_format.h.
//
// Error of one number x, stored and restored as x', before x' is rounded to the element type (which
// adds at most 2^-8 of x' for bf16, 2^-11 for f16, 2^-24 for f32):
//
//   fp8_e4m3: s is the smallest power of two with the largest finite magnitude of the (layer, K|V,
//     head) <= 448 s. |x' - x| <= |x| / 17 (5.9 %) where |x| >= s / 64, and s / 1024 below.
//     Rounding to the element type adds nothing, since x' has 4 significant bits (f16's denormals
//     excepted).
//
//   int8: s is the largest finite magnitude of the (layer, K|V, head) / 127. |x' - x| <= s / 2.
//
//   int4: d is (largest - smallest of the group) / 15, both ends rounded outwards to f16.
//     |x' - x| <= d / 2.
//
// int8 and int4 are within 2^-20 of these bounds: their scaling is f32 arithmetic.
//
// What is not an ordinary number:
//
//   Zeros: a (layer, K|V, head) of zeros, and an int4 group of equal numbers that f16 holds, come
//     back exactly. Negative zero keeps its sign under fp8_e4m3 alone.
//
//   Denormals are numbers like others, but no scale is below 2^-126 and no int4 step but 0 is below
//     2^-24.
//
//   Infinity does not count for a scale, and comes back as the largest number that its scale can
//     say, with its sign (448 s, 127 s). For int4 it is 65504, which counts for its group.
//
//   NaN does not count for a scale. fp8_e4m3 brings it back as NaN, int8 as 0; int4 takes it for 0.
//
//   int4 holds numbers up to 65504, f16's largest; larger ones become that. What decodes to more
//     than the element type's largest finite number becomes that.
//
// The CUDA form (quantize_cuda.h) gives the same bytes, and so does the CPU form whatever the
// instruction set (quantize_isa.h).
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/quantize/quant_format.h"

namespace reprise::kernels {

// Codec and group of `shape` are set by name. INVALID_ARGUMENT CODEC_UNKNOWN names the codecs there
// are.
absl::StatusOr<QuantShape> WithCodec(QuantShape shape, absl::string_view codec_name);

// What is wrong with a shape, as one sentence; empty when it can be used.
const char* QuantFault(const QuantShape& shape);

// REQUIRES, here and below: QuantFault(shape) is empty.
uint64_t EncodedBlockBytes(const QuantShape& shape);

// `block` has LayoutOf(shape).plain_block_bytes bytes, `encoded` EncodedBlockBytes(shape); both
// 4-byte aligned, apart. Every byte of the output is written, padding as zeros.
void EncodeBlock(const QuantShape& shape, const uint8_t* block, uint8_t* encoded);
void DecodeBlock(const QuantShape& shape, const uint8_t* encoded, uint8_t* block);

}  // namespace reprise::kernels
