// Every conversion against its definition, most of them for every input there is.
#include "kernels/quantize/quant_math.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

namespace reprise::kernels::quant {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// The value of a small float format, from its definition, in double.
double ValueOf(uint32_t code, int exponent_bits, int mantissa_bits, int bias) {
  const uint32_t mantissa = code & ((1u << mantissa_bits) - 1);
  const auto exponent = static_cast<int>(code >> mantissa_bits & ((1u << exponent_bits) - 1));
  const double sign = code >> (exponent_bits + mantissa_bits) & 1 ? -1.0 : 1.0;
  const double fraction = static_cast<double>(mantissa) / (1u << mantissa_bits);
  return exponent == 0 ? sign * std::ldexp(fraction, 1 - bias)
                       : sign * std::ldexp(1.0 + fraction, exponent - bias);
}

// Of all finite codes the one nearest to x, ties to the even code.
uint32_t NearestCode(double x, const std::vector<double>& values) {
  uint32_t best = 0;
  for (uint32_t code = 1; code < values.size(); ++code) {
    const double gain = std::abs(values[best] - std::abs(x)) - std::abs(values[code] - std::abs(x));
    if (gain > 0 || (gain == 0 && code % 2 == 0)) best = code;
  }
  return best;
}

TEST(E4m3Test, EveryCodeHasTheValueOfItsDefinition) {
  for (uint32_t code = 0; code < 256; ++code) {
    const float value = E4m3ToFloat(static_cast<uint8_t>(code));
    if ((code & 0x7F) == 0x7F) {
      EXPECT_TRUE(std::isnan(value)) << code;
      continue;
    }
    EXPECT_EQ(value, ValueOf(code, 4, 3, 7)) << code;
    EXPECT_EQ(FloatToE4m3(value), code) << value;
  }
  EXPECT_EQ(E4m3ToFloat(0x7E), kE4m3Max);
}

TEST(E4m3Test, EncodingPicksTheNearestAndTheEvenOfTwo) {
  std::vector<double> values;
  for (uint32_t code = 0; code < 0x7F; ++code) values.push_back(ValueOf(code, 4, 3, 7));
  std::mt19937 random(31);
  std::vector<float> inputs;
  for (size_t code = 0; code + 1 < values.size(); ++code) {
    const auto middle = static_cast<float>((values[code] + values[code + 1]) / 2);
    inputs.insert(inputs.end(),
                  {middle, std::nextafter(middle, kInfinity), std::nextafter(middle, 0.0f)});
  }
  std::uniform_real_distribution<float> exponent(-14, 10);
  for (int i = 0; i < 20'000; ++i) inputs.push_back(std::exp2(exponent(random)));
  for (float input : inputs) {
    const uint32_t expected = NearestCode(input, values);
    EXPECT_EQ(FloatToE4m3(input), expected) << input;
    EXPECT_EQ(FloatToE4m3(-input), expected | 0x80) << -input;
  }
}

TEST(E4m3Test, WhatIsNoOrdinaryNumber) {
  EXPECT_EQ(FloatToE4m3(kInfinity), 0x7E);
  EXPECT_EQ(FloatToE4m3(-kInfinity), 0xFE);
  EXPECT_EQ(FloatToE4m3(1e30f), 0x7E);
  EXPECT_EQ(FloatToE4m3(kNan), 0x7F);
  EXPECT_EQ(FloatToE4m3(0.0f), 0);
  EXPECT_EQ(FloatToE4m3(-0.0f), 0x80);
  EXPECT_EQ(FloatToE4m3(1e-40f), 0);
}

TEST(F16Test, EveryHalfHasTheValueOfItsDefinitionAndComesBack) {
  for (uint32_t half = 0; half < 0x10000; ++half) {
    const float value = F16ToFloat(static_cast<uint16_t>(half));
    if ((half & 0x7C00) == 0x7C00) {
      EXPECT_EQ(std::isnan(value), (half & 0x3FF) != 0);
      EXPECT_EQ(std::isinf(value), (half & 0x3FF) == 0);
      continue;
    }
    ASSERT_EQ(value, ValueOf(half, 5, 10, 15)) << half;
    ASSERT_EQ(FloatToF16(value), half) << value;
  }
  EXPECT_EQ(FloatToF16(kInfinity), 0x7C00);
  EXPECT_EQ(FloatToF16(65519.996f), 0x7BFF);
  EXPECT_EQ(FloatToF16(-65520.0f), 0xFC00);
  EXPECT_EQ(FloatToF16(kNan), 0x7FFF);
}

TEST(F16Test, RoundsToNearestEvenBetweenNeighbours) {
  for (uint32_t half = 0; half < 0x7BFF; ++half) {
    const float below = F16ToFloat(static_cast<uint16_t>(half));
    const float above = F16ToFloat(static_cast<uint16_t>(half + 1));
    const float middle = (below + above) / 2;  // exact in f32
    ASSERT_EQ(FloatToF16(middle), half % 2 == 0 ? half : half + 1);
    ASSERT_EQ(FloatToF16(std::nextafter(middle, 0.0f)), half);
    ASSERT_EQ(FloatToF16(std::nextafter(middle, kInfinity)), half + 1);
  }
}

TEST(F16Test, DownIsNeverAboveAndUpNeverBelowAndBothAreTight) {
  std::mt19937 random(37);
  std::uniform_real_distribution<float> exponent(-30, 15.9f);
  std::vector<float> inputs = {0.0f, kF16Max, 1e-30f, 5.9604645e-8f, 6.1e-5f};
  for (int i = 0; i < 50'000; ++i) inputs.push_back(std::exp2(exponent(random)));
  for (float magnitude : inputs) {
    for (float x : {magnitude, -magnitude}) {
      if (Magnitude(x) > kF16Max) continue;
      const float down = F16ToFloat(FloatToF16Down(x));
      const float up = F16ToFloat(FloatToF16Up(x));
      ASSERT_LE(down, x);
      ASSERT_GE(up, x);
      const float nearest = F16ToFloat(FloatToF16(x));
      ASSERT_TRUE(down == nearest || up == nearest) << x;
      ASSERT_LE(up - down, std::max(Magnitude(x) / 1024 * 1.0001f, 5.97e-8f)) << x;
    }
  }
}

TEST(Bf16Test, RoundsToNearestEvenAndComesBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = Bf16ToFloat(static_cast<uint16_t>(bits));
    if (std::isnan(value)) {
      ASSERT_EQ(FloatToBf16(value), 0x7FFF);
      continue;
    }
    ASSERT_EQ(FloatToBf16(value), bits);
    if (std::isinf(value) || bits >= 0x7F7F) continue;
    const float middle = FloatOf(bits << 16 | 0x8000);
    ASSERT_EQ(FloatToBf16(middle), bits % 2 == 0 ? bits : bits + 1);
    ASSERT_EQ(FloatToBf16(FloatOf(bits << 16 | 0x7FFF)), bits);
    ASSERT_EQ(FloatToBf16(FloatOf(bits << 16 | 0x8001)), bits + 1);
  }
}

TEST(ScaleTest, ZeroesAndDenormalsHaveAScaleWithAFiniteInverse) {
  for (Codec codec : {Codec::kFp8E4M3, Codec::kInt8}) {
    EXPECT_EQ(ScaleOf(0.0f, codec), 1.0f);
    for (float largest : {1e-45f, 1e-40f, kScaleMin, 1.0f, 3.4e38f}) {
      const float scale = ScaleOf(largest, codec);
      EXPECT_GE(scale, kScaleMin);
      EXPECT_TRUE(std::isfinite(1.0f / scale)) << largest;
    }
  }
  for (int exponent = -100; exponent <= 100; ++exponent) {
    const float power = std::exp2(static_cast<float>(exponent));
    EXPECT_EQ(E4m3Scale(448 * power), power);
    EXPECT_EQ(E4m3Scale(std::nextafter(448 * power, kInfinity)), 2 * power);
    EXPECT_EQ(E4m3Scale(std::nextafter(224 * power, kInfinity)), power);
  }
  EXPECT_EQ(ScaleMagnitude(-2.5f), 2.5f);
  EXPECT_EQ(ScaleMagnitude(kInfinity), 0.0f);
  EXPECT_EQ(ScaleMagnitude(kNan), 0.0f);
}

TEST(GroupTest, SixteenStepsReachOverTheGroup) {
  std::mt19937 random(41);
  std::uniform_real_distribution<float> exponent(-20, 15);
  std::uniform_real_distribution<float> unit(-1, 1);
  for (int i = 0; i < 20'000; ++i) {
    GroupBounds bounds;
    const float offset = unit(random) * std::exp2(exponent(random));
    const float width = std::exp2(exponent(random));
    for (int k = 0; k < 8; ++k) bounds.Add(offset + width * unit(random));
    const GroupScale scale = UnpackGroup(GroupParameters(bounds));
    ASSERT_LE(scale.low, bounds.low);
    ASSERT_GE(scale.low + 15 * scale.step,
              bounds.high - 1e-6f * (Magnitude(bounds.high) + Magnitude(scale.low)));
  }
}

TEST(ElementTest, StoringSaturatesAndKeepsNan) {
  EXPECT_EQ(F16::FromFloat(65536.0f), 0x7BFF);
  EXPECT_EQ(F16::FromFloat(-kInfinity), 0xFBFF);
  EXPECT_EQ(Bf16::FromFloat(kInfinity), 0x7F7F);
  EXPECT_EQ(Bf16::FromFloat(-kF32Max), 0xFF7F);
  EXPECT_EQ(F32::FromFloat(kInfinity), BitsOf(kF32Max));
  EXPECT_EQ(F16::FromFloat(kNan), 0x7FFF);
  EXPECT_EQ(Bf16::FromFloat(kNan), 0x7FFF);
  EXPECT_TRUE(std::isnan(F32::ToFloat(F32::FromFloat(kNan))));
}

}  // namespace
}  // namespace reprise::kernels::quant
