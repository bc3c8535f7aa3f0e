// The arithmetic of the codecs, one number at a time: the same results on the CPU and on the GPU.
// No operation's result could differ between the two (no fused multiply-add can form, divisions are
// IEEE, and a NaN that is stored is one NaN); where the GPU converts a number format in one
// instruction, that instruction is used instead of the steps that the CPU takes.
//
// Thread safety: pure functions. C++17.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/quantize/quant_format.h"
#include "kernels/runtime/host_device.h"

namespace reprise::kernels::quant {

inline constexpr float kE4m3Max = 448.0f;
inline constexpr float kInt8Max = 127.0f;
inline constexpr float kInt4Max = 15.0f;
inline constexpr float kF16Max = 65504.0f;
inline constexpr float kBf16Max = 3.38953139e38f;
inline constexpr float kF32Max = 3.40282347e38f;
inline constexpr float kScaleMin =
    1.17549435e-38f;  // the smallest normal f32: its inverse is finite

REPRISE_HD uint32_t BitsOf(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  return bits;
}

REPRISE_HD float FloatOf(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof(x));
  return x;
}

REPRISE_HD float Magnitude(float x) {
  return FloatOf(BitsOf(x) & 0x7FFFFFFFu);
}
REPRISE_HD bool IsNan(float x) {
  return x != x;
}

// To the nearest integer, ties to even. REQUIRES: |x| < 2^31.
REPRISE_HD int32_t RoundEven(float x) {
#ifdef __CUDA_ARCH__
  return __float2int_rn(x);
#else
  return static_cast<int32_t>(std::lrintf(x));
#endif
}

// ---- 16-bit floats. NaN becomes 0x7FFF.

REPRISE_HD float F16ToFloat(uint16_t half) {
#ifdef __CUDA_ARCH__
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(half));
  return x;
#else
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = half >> 10 & 31u;
  const uint32_t mantissa = half & 1023u;
  if (exponent == 31) return FloatOf(sign | 0x7F800000u | mantissa << 13);
  if (exponent != 0) return FloatOf(sign | (exponent + 112) << 23 | mantissa << 13);
  const float subnormal = static_cast<float>(mantissa) * 5.9604644775390625e-8f;  // 2^-24
  return FloatOf(sign | BitsOf(subnormal));
#endif
}

REPRISE_HD uint16_t FloatToF16(float x) {
#ifdef __CUDA_ARCH__
  uint16_t half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(x));
  return half;
#else
  const uint32_t bits = BitsOf(x);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return 0x7FFF;
  if (magnitude >= 0x477FF000u) return sign | 0x7C00u;  // 65520 and more
  if (magnitude < 0x38800000u) {                        // below 2^-14: steps of 2^-24
    return sign | static_cast<uint16_t>(RoundEven(FloatOf(magnitude) * 16777216.0f));
  }
  const uint32_t rounded = magnitude + 0xFFFu + (magnitude >> 13 & 1u);
  return sign | static_cast<uint16_t>((rounded >> 13) - (112u << 10));
#endif
}

// The largest half that is not above x, and the smallest that is not below. REQUIRES: |x| <=
// kF16Max.
REPRISE_HD uint16_t FloatToF16Down(float x) {
  const uint16_t nearest = FloatToF16(x);
  if (F16ToFloat(nearest) <= x) return nearest;
  if ((nearest & 0x7FFFu) == 0) return 0x8001u;
  return (nearest & 0x8000u) != 0 ? nearest + 1 : nearest - 1;
}

REPRISE_HD uint16_t FloatToF16Up(float x) {
  return FloatToF16Down(-x) ^ 0x8000u;
}

REPRISE_HD float Bf16ToFloat(uint16_t x) {
  return FloatOf(static_cast<uint32_t>(x) << 16);
}

REPRISE_HD uint16_t FloatToBf16(float x) {
#ifdef __CUDA_ARCH__
  uint16_t half;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(half) : "f"(x));
  return half;
#else
  const uint32_t bits = BitsOf(x);
  if (IsNan(x)) return 0x7FFF;
  return static_cast<uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
#endif
}

// ---- Elements in memory, as the engine has them

// FromFloat rounds to nearest; what is beyond the type's largest finite number becomes that, NaN
// stays NaN.
REPRISE_HD float Saturate(float x, float largest) {
  return x > largest ? largest : x < -largest ? -largest : x;
}

struct F32 {
  using Bits = uint32_t;
  REPRISE_HD static float ToFloat(Bits bits) { return FloatOf(bits); }
  REPRISE_HD static Bits FromFloat(float x) {
    return IsNan(x) ? 0x7FFFFFFFu : BitsOf(Saturate(x, kF32Max));
  }
};

struct F16 {
  using Bits = uint16_t;
  REPRISE_HD static float ToFloat(Bits bits) { return F16ToFloat(bits); }
  REPRISE_HD static Bits FromFloat(float x) { return FloatToF16(Saturate(x, kF16Max)); }
};

struct Bf16 {
  using Bits = uint16_t;
  REPRISE_HD static float ToFloat(Bits bits) { return Bf16ToFloat(bits); }
  REPRISE_HD static Bits FromFloat(float x) { return FloatToBf16(Saturate(x, kBf16Max)); }
};

// ---- fp8 e4m3: 1 sign, 4 exponent (bias 7), 3 mantissa bits; largest 448; no infinity; NaN is
// 0x7F

// To the nearest, ties to even; beyond 448 it is 448.
REPRISE_HD uint8_t FloatToE4m3(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  uint16_t pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(0.0f), "f"(x));
  return static_cast<uint8_t>(pair);
#else
  const uint32_t bits = BitsOf(x);
  const auto sign = static_cast<uint8_t>(bits >> 24 & 0x80u);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return 0x7F;
  if (magnitude >= 0x43E00000u) return sign | 0x7Eu;  // 448
  if (magnitude < 0x3C800000u) {                      // below 2^-6: steps of 2^-9
    return sign | static_cast<uint8_t>(RoundEven(FloatOf(magnitude) * 512.0f));
  }
  const uint32_t rounded = magnitude + 0x7FFFFu + (magnitude >> 20 & 1u);
  return sign | static_cast<uint8_t>((rounded >> 20) - (120u << 3));
#endif
}

// Two at once: `low` in the low byte.
REPRISE_HD uint16_t FloatsToE4m3(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  uint16_t pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return static_cast<uint16_t>(FloatToE4m3(low) | FloatToE4m3(high) << 8);
#endif
}

REPRISE_HD float E4m3ToFloat(uint8_t code) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  uint32_t halves;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(static_cast<uint16_t>(code)));
  return F16ToFloat(static_cast<uint16_t>(halves));
#else
  const uint32_t sign = static_cast<uint32_t>(code & 0x80u) << 24;
  const uint32_t exponent = code >> 3 & 15u;
  const uint32_t mantissa = code & 7u;
  if ((code & 0x7Fu) == 0x7Fu) return FloatOf(sign | 0x7FC00000u);
  if (exponent != 0) return FloatOf(sign | (exponent + 120) << 23 | mantissa << 20);
  return FloatOf(sign | BitsOf(static_cast<float>(mantissa) * 0.001953125f));  // 2^-9
#endif
}

// ---- One scale for many numbers

// What `x` adds to the largest magnitude: infinities and NaN nothing.
REPRISE_HD float ScaleMagnitude(float x) {
  const float magnitude = Magnitude(x);
  return magnitude <= kF32Max ? magnitude : 0.0f;
}

// fp8: the smallest power of two s with largest <= 448 s. Scaling by it is exact both ways, and
// e4m3's 4 significant bits fit every element type, so the only error is e4m3's own.
REPRISE_HD float E4m3Scale(float largest) {
  const uint32_t bits = BitsOf(largest);
  const int32_t exponent =
      static_cast<int32_t>(bits >> 23) - 8 + ((bits & 0x7FFFFFu) > 0x600000u ? 1 : 0);
  return FloatOf(static_cast<uint32_t>(exponent < 1 ? 1 : exponent) << 23);
}

REPRISE_HD float ScaleOf(float largest, Codec codec) {
  if (largest == 0.0f) return 1.0f;
  if (codec != Codec::kInt8) return E4m3Scale(largest);
  const float scale = largest / kInt8Max;
  return scale < kScaleMin ? kScaleMin : scale;
}

REPRISE_HD uint8_t EncodeScaled(float x, float inverse_scale, Codec codec) {
  const float scaled = x * inverse_scale;
  if (codec != Codec::kInt8) return FloatToE4m3(scaled);
  if (IsNan(scaled)) return 0;
  return static_cast<uint8_t>(static_cast<int8_t>(RoundEven(Saturate(scaled, kInt8Max))));
}

REPRISE_HD uint16_t EncodeScaledPair(float low, float high, float inverse_scale, Codec codec) {
  if (codec != Codec::kInt8) return FloatsToE4m3(low * inverse_scale, high * inverse_scale);
  return static_cast<uint16_t>(EncodeScaled(low, inverse_scale, codec) |
                               EncodeScaled(high, inverse_scale, codec) << 8);
}

REPRISE_HD float DecodeScaled(uint8_t code, float scale, Codec codec) {
  return codec == Codec::kInt8 ? static_cast<float>(static_cast<int8_t>(code)) * scale
                               : E4m3ToFloat(code) * scale;
}

// ---- Groups of int4

// A number as int4 sees it: NaN is 0, and all is within f16.
REPRISE_HD float GroupValue(float x) {
  return IsNan(x) ? 0.0f : Saturate(x, kF16Max);
}

struct GroupBounds {
  float low = kF16Max;
  float high = -kF16Max;
  REPRISE_HD void Add(float x) {
    const float value = GroupValue(x);
    low = value < low ? value : low;
    high = value > high ? value : high;
  }
};

// step (low 16 bits) and low (high 16 bits): low rounded down and step up, so that the 16 codes
// reach over the group.
REPRISE_HD uint32_t GroupParameters(const GroupBounds& bounds) {
  const uint16_t low = FloatToF16Down(bounds.low);
  const uint16_t step = FloatToF16Up((bounds.high - F16ToFloat(low)) / kInt4Max);
  return step | static_cast<uint32_t>(low) << 16;
}

struct GroupScale {
  float low;
  float step;
  float inverse_step;  // 0 when step is: all codes are 0
};

REPRISE_HD GroupScale UnpackGroup(uint32_t parameters) {
  GroupScale scale;
  scale.step = F16ToFloat(static_cast<uint16_t>(parameters & 0xFFFFu));
  scale.low = F16ToFloat(static_cast<uint16_t>(parameters >> 16));
  scale.inverse_step = scale.step > 0.0f ? 1.0f / scale.step : 0.0f;
  return scale;
}

REPRISE_HD uint32_t EncodeGrouped(float x, const GroupScale& scale) {
  const float steps = (GroupValue(x) - scale.low) * scale.inverse_step;
  return static_cast<uint32_t>(RoundEven(steps < 0.0f       ? 0.0f
                                         : steps > kInt4Max ? kInt4Max
                                                            : steps));
}

REPRISE_HD float DecodeGrouped(uint32_t code, const GroupScale& scale) {
  return Saturate(scale.low + static_cast<float>(code) * scale.step,
                  kF16Max);  // the product is exact
}

}  // namespace reprise::kernels::quant
