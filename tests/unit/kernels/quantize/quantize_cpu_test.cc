#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/quantize/quant_math.h"
#include "kernels/quantize/quantize.h"
#include "proto/types/refusal.h"

namespace reprise::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr double kScalingError = 1.0 / (1 << 20);  // of the bounds in quantize.h

float LoadElement(ElementType element, const uint8_t* at) {
  uint16_t half;
  uint32_t word;
  std::memcpy(&half, at, sizeof(half));
  if (element == ElementType::kF16) return quant::F16ToFloat(half);
  if (element == ElementType::kBf16) return quant::Bf16ToFloat(half);
  std::memcpy(&word, at, sizeof(word));
  return quant::FloatOf(word);
}

void StoreElement(ElementType element, uint8_t* at, float value) {
  if (element == ElementType::kF32) {
    std::memcpy(at, &value, sizeof(value));
    return;
  }
  const uint16_t half =
      element == ElementType::kF16 ? quant::FloatToF16(value) : quant::FloatToBf16(value);
  std::memcpy(at, &half, sizeof(half));
}

// What rounding to the element type may add.
double ElementError(ElementType element, double value) {
  if (element == ElementType::kF32) return std::abs(value) * std::ldexp(1.0, -24) + 1e-44;
  if (element == ElementType::kF16)
    return std::abs(value) * std::ldexp(1.0, -11) + std::ldexp(1.0, -25);
  return std::abs(value) * std::ldexp(1.0, -8) + 1e-40;
}

// A canonical block, its encoding and what comes back.
class Trip {
 public:
  explicit Trip(const QuantShape& shape)
      : shape_(shape),
        layout_(LayoutOf(shape)),
        block_(layout_.plain_block_bytes),
        encoded_(EncodedBlockBytes(shape), 0xA5),
        back_(layout_.plain_block_bytes, 0xA5) {}

  uint64_t Offset(uint32_t plane, uint32_t head, uint32_t token, uint32_t channel) const {
    const uint64_t row = (uint64_t{plane} * shape_.heads + head) * shape_.tokens + token;
    return row * layout_.row_bytes + channel * layout_.element_bytes;
  }
  void Set(uint32_t plane, uint32_t head, uint32_t token, uint32_t channel, float value) {
    StoreElement(shape_.element, block_.data() + Offset(plane, head, token, channel), value);
  }
  float Before(uint32_t plane, uint32_t head, uint32_t token, uint32_t channel) const {
    return LoadElement(shape_.element, block_.data() + Offset(plane, head, token, channel));
  }
  float After(uint32_t plane, uint32_t head, uint32_t token, uint32_t channel) const {
    return LoadElement(shape_.element, back_.data() + Offset(plane, head, token, channel));
  }
  void Run() {
    largest_.assign(shape_.layers * shape_.planes_per_layer * shape_.heads, 0);
    ForEach([&](uint32_t plane, uint32_t head, uint32_t token, uint32_t channel) {
      double& largest = largest_[plane * shape_.heads + head];
      largest = std::max<double>(largest, std::abs(Before(plane, head, token, channel)));
    });
    EncodeBlock(shape_, block_.data(), encoded_.data());
    DecodeBlock(shape_, encoded_.data(), back_.data());
  }
  // The largest magnitude that went in.
  double Largest(uint32_t plane, uint32_t head) const {
    return largest_[plane * shape_.heads + head];
  }
  // Numbers as K/V caches have them: a normal spread, an outlier channel per head, an offset.
  void FillLikeAModel(uint64_t seed, float spread) {
    std::mt19937_64 random(seed);
    std::normal_distribution<float> normal(0, spread);
    ForEach([&](uint32_t plane, uint32_t head, uint32_t token, uint32_t channel) {
      const float outlier = channel == (head + 3) % shape_.channels ? 20 * spread : 0;
      Set(plane, head, token, channel, normal(random) + outlier);
    });
  }
  template <typename Visit>
  void ForEach(Visit visit) const {
    for (uint32_t plane = 0; plane < shape_.layers * shape_.planes_per_layer; ++plane) {
      for (uint32_t head = 0; head < shape_.heads; ++head) {
        for (uint32_t token = 0; token < shape_.tokens; ++token) {
          for (uint32_t channel = 0; channel < shape_.channels; ++channel)
            visit(plane, head, token, channel);
        }
      }
    }
  }

  const QuantLayout& layout() const { return layout_; }
  std::vector<uint8_t>& block() { return block_; }
  std::vector<uint8_t>& encoded() { return encoded_; }
  const std::vector<uint8_t>& back() const { return back_; }

 private:
  QuantShape shape_;
  QuantLayout layout_;
  std::vector<uint8_t> block_;
  std::vector<uint8_t> encoded_;
  std::vector<uint8_t> back_;
  std::vector<double> largest_;
};

struct Case {
  std::string name;
  QuantShape shape;
};

std::vector<Case> Cases() {
  std::vector<Case> cases;
  const std::pair<const char*, ElementType> kElements[] = {
      {"bf16", ElementType::kBf16}, {"f16", ElementType::kF16}, {"f32", ElementType::kF32}};
  const std::pair<const char*, QuantShape> kShapes[] = {
      {"gqa", {.layers = 2, .planes_per_layer = 2, .heads = 3, .tokens = 16, .channels = 128}},
      {"mla", {.layers = 2, .planes_per_layer = 1, .heads = 1, .tokens = 16, .channels = 576}},
      {"long_block",
       {.layers = 1, .planes_per_layer = 2, .heads = 2, .tokens = 80, .channels = 64}},
      {"odd", {.layers = 1, .planes_per_layer = 2, .heads = 2, .tokens = 5, .channels = 33}},
      {"tiny", {.layers = 1, .planes_per_layer = 2, .heads = 1, .tokens = 1, .channels = 1}},
  };
  for (const char* codec : {"fp8_e4m3", "int8", "int4", "int4_g64"}) {
    for (const auto& [element_name, element] : kElements) {
      for (const auto& [shape_name, shape] : kShapes) {
        QuantShape chosen = WithCodec(shape, codec).value();
        chosen.element = element;
        cases.push_back({std::string(codec) + "_" + element_name + "_" + shape_name, chosen});
      }
    }
  }
  return cases;
}

class QuantizeTest : public testing::TestWithParam<Case> {
 protected:
  const QuantShape& shape() const { return GetParam().shape; }

  // The largest error that quantize.h allows for this number, given what shares its scale or group.
  double Bound(const Trip& trip, uint32_t plane, uint32_t head, uint32_t token,
               uint32_t channel) const {
    const double x = trip.Before(plane, head, token, channel);
    if (shape().codec == Codec::kInt4) {
      const bool per_channel = shape().planes_per_layer == 2 && plane % 2 == 0;
      const uint32_t group = shape().group;
      const uint32_t first_token = per_channel ? token / group * group : token;
      const uint32_t end_token =
          per_channel ? std::min(first_token + group, shape().tokens) : token + 1;
      const uint32_t first_channel = per_channel ? channel : channel / group * group;
      const uint32_t end_channel =
          per_channel ? channel + 1 : std::min(first_channel + group, shape().channels);
      double low = kInfinity;
      double high = -kInfinity;
      for (uint32_t t = first_token; t < end_token; ++t) {
        for (uint32_t c = first_channel; c < end_channel; ++c) {
          low = std::min<double>(low, trip.Before(plane, head, t, c));
          high = std::max<double>(high, trip.Before(plane, head, t, c));
        }
      }
      // low is rounded down to f16 and the step up.
      const double low_step = std::max(std::abs(low) / 1024, std::ldexp(1.0, -24));
      const double exact_step = (high - low + low_step) / 15;
      const double step = exact_step * (1 + 1.0 / 1024) + std::ldexp(1.0, -24);
      return step / 2 + (std::abs(x) + step) * kScalingError;
    }
    const double largest = trip.Largest(plane, head);
    if (shape().codec == Codec::kInt8) return largest / 127 / 2 + largest * kScalingError;
    const double scale = std::exp2(std::ceil(std::log2(largest / 448)));
    return std::max(std::abs(x) / 17, scale / 1024);
  }
};

TEST_P(QuantizeTest, ErrorsStayWithinTheStatedBounds) {
  for (float spread : {1.0f, 1e-3f, 300.0f}) {
    Trip trip(shape());
    trip.FillLikeAModel(43, spread);
    trip.Run();
    trip.ForEach([&](uint32_t plane, uint32_t head, uint32_t token, uint32_t channel) {
      const double x = trip.Before(plane, head, token, channel);
      const double back = trip.After(plane, head, token, channel);
      const double bound = Bound(trip, plane, head, token, channel);
      const bool exact = shape().codec == Codec::kFp8E4M3 && shape().element == ElementType::kBf16;
      ASSERT_LE(std::abs(back - x), bound + (exact ? 0.0 : ElementError(shape().element, back)))
          << x << " came back as " << back << ", spread " << spread;
    });
  }
}

TEST_P(QuantizeTest, EveryByteIsWrittenAndPaddingIsZero) {
  Trip trip(shape());
  trip.FillLikeAModel(47, 1.0f);
  trip.Run();
  Trip again(shape());
  again.block() = trip.block();
  std::fill(again.encoded().begin(), again.encoded().end(), 0x5A);
  again.Run();
  EXPECT_EQ(again.encoded(), trip.encoded());
  for (uint64_t at = 0; at < trip.back().size(); ++at) {
    if (at % trip.layout().row_bytes >= shape().channels * trip.layout().element_bytes) {
      ASSERT_EQ(trip.back()[at], 0) << at;
    }
  }
  for (uint64_t layer = 0; layer < shape().layers; ++layer) {
    const uint8_t* encoded = trip.encoded().data() + layer * trip.layout().layer_bytes;
    for (uint32_t plane = 0; plane < shape().planes_per_layer; ++plane) {
      const uint64_t end =
          trip.layout().parameters_at[plane] + trip.layout().parameter_data_bytes[plane];
      for (uint64_t at = end; at < PadTo16(end); ++at) ASSERT_EQ(encoded[at], 0);
    }
    for (uint64_t at = trip.layout().codes_at; at < trip.layout().layer_bytes; ++at) {
      if ((at - trip.layout().codes_at) % trip.layout().code_row_bytes >=
          trip.layout().code_row_data_bytes) {
        ASSERT_EQ(encoded[at], 0);
      }
    }
  }
}

TEST_P(QuantizeTest, EqualNumbersThatF16HoldsComeBackExactly) {
  for (float value : {0.0f, 1.0f, -2.5f, 640.0f}) {
    Trip trip(shape());
    trip.ForEach([&](uint32_t plane, uint32_t head, uint32_t token, uint32_t channel) {
      trip.Set(plane, head, token, channel, value);
    });
    trip.Run();
    trip.ForEach([&](uint32_t plane, uint32_t head, uint32_t token, uint32_t channel) {
      const float back = trip.After(plane, head, token, channel);
      if (shape().codec == Codec::kInt4 || value == 0.0f) {
        ASSERT_EQ(back, value);
      } else {
        // int8: 127 times a rounded scale. e4m3 has the 4 significant bits of all four.
        const double error = std::abs(value) * 1e-6 + ElementError(shape().element, value);
        ASSERT_NEAR(back, value, shape().codec == Codec::kFp8E4M3 ? 0.0 : error);
      }
    });
  }
}

TEST_P(QuantizeTest, NanAndInfinityAreStoredAsStated) {
  if (shape().channels < 8) return;  // a head of one number has nothing beside it
  Trip trip(shape());
  trip.FillLikeAModel(53, 1.0f);
  trip.Set(0, 0, 0, 0, kNan);
  trip.Set(0, 0, 0, 1, kInfinity);
  trip.Set(0, 0, 0, 2, -kInfinity);
  trip.Run();
  float largest = 0;
  for (uint32_t token = 0; token < shape().tokens; ++token) {
    for (uint32_t channel = 0; channel < shape().channels; ++channel) {
      largest = std::max(largest, quant::ScaleMagnitude(trip.Before(0, 0, token, channel)));
    }
  }
  const double error = largest * 1e-6 + ElementError(shape().element, largest);
  const float said = std::exp2(std::ceil(std::log2(largest / 448))) * 448;
  switch (shape().codec) {
    case Codec::kFp8E4M3:
      EXPECT_TRUE(std::isnan(trip.After(0, 0, 0, 0)));
      EXPECT_EQ(trip.After(0, 0, 0, 1), said);
      EXPECT_EQ(trip.After(0, 0, 0, 2), -said);
      break;
    case Codec::kInt8:
      EXPECT_EQ(trip.After(0, 0, 0, 0), 0.0f);
      EXPECT_NEAR(trip.After(0, 0, 0, 1), largest, error);
      EXPECT_NEAR(trip.After(0, 0, 0, 2), -largest, error);
      break;
    case Codec::kInt4: {
      const bool per_channel = shape().planes_per_layer == 2;
      // The group of a NaN reaches from 0 or below to 0 or above.
      EXPECT_LE(std::abs(trip.After(0, 0, 0, 0)), per_channel ? 3.0f : 65504.0f / 7.0f);
      EXPECT_NEAR(trip.After(0, 0, 0, 1), 65504.0f, 256.0f);
      EXPECT_NEAR(trip.After(0, 0, 0, 2), -65504.0f, 256.0f);
      break;
    }
  }
  for (uint32_t channel = 0; channel < shape().channels; ++channel) {
    ASSERT_TRUE(std::isfinite(trip.After(0, 0, shape().tokens - 1, channel)) ||
                shape().tokens == 1);
  }
}

TEST_P(QuantizeTest, DenormalNumbersAreSmallNumbers) {
  const float tiny = shape().element == ElementType::kF16 ? 3e-7f : 1e-39f;
  Trip trip(shape());
  trip.ForEach([&](uint32_t plane, uint32_t head, uint32_t token, uint32_t channel) {
    trip.Set(plane, head, token, channel, channel % 2 == 0 ? tiny : -tiny);
  });
  trip.Run();
  const float step = shape().codec == Codec::kInt4 ? 1.2e-7f : quant::kScaleMin;
  trip.ForEach([&](uint32_t plane, uint32_t head, uint32_t token, uint32_t channel) {
    const float x = trip.Before(plane, head, token, channel);
    ASSERT_NEAR(trip.After(plane, head, token, channel), x, tiny / 8 + step);
  });
}

INSTANTIATE_TEST_SUITE_P(Codecs, QuantizeTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

TEST(QuantLayoutTest, Fp8CodesOfBf16AreHalfTheBytesAndScalesOneNumberPerHead) {
  const QuantShape llama =
      WithCodec({.layers = 32, .planes_per_layer = 2, .heads = 8, .tokens = 16, .channels = 128},
                "fp8_e4m3")
          .value();
  const QuantLayout layout = LayoutOf(llama);
  EXPECT_EQ(layout.plain_block_bytes, 2u << 20);
  EXPECT_EQ(layout.layer_bytes, 64u + 32'768u);
  EXPECT_EQ(EncodedBlockBytes(llama), (1u << 20) + 32 * 64);
}

TEST(QuantLayoutTest, Int4IsAQuarterPlusItsGroups) {
  const QuantShape llama =
      WithCodec({.layers = 32, .planes_per_layer = 2, .heads = 8, .tokens = 64, .channels = 128},
                "int4")
          .value();
  const QuantLayout layout = LayoutOf(llama);
  // 8 heads * 2 token groups * 128 channels, and 8 heads * 64 tokens * 4 channel groups, of 4
  // bytes.
  EXPECT_EQ(layout.codes_at, 8'192u + 8'192u);
  EXPECT_EQ(EncodedBlockBytes(llama), layout.plain_block_bytes / 4 + 32 * layout.codes_at);
}

TEST(QuantShapeTest, UnknownCodecsAndEmptyShapesAreNamed) {
  const absl::Status status = WithCodec({}, "zip").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(RefusalReason(status), "CODEC_UNKNOWN");
  EXPECT_NE(status.message().find("zip"), absl::string_view::npos);
  const QuantShape good = {
      .layers = 1, .planes_per_layer = 2, .heads = 1, .tokens = 1, .channels = 1};
  EXPECT_STREQ(QuantFault(good), "");
  const auto fault = [&](const std::function<void(QuantShape&)>& spoil) {
    QuantShape shape = good;
    spoil(shape);
    return std::string(QuantFault(shape));
  };
  EXPECT_NE(fault([](QuantShape& shape) { shape.layers = 0; }).find("layers"), std::string::npos);
  EXPECT_NE(fault([](QuantShape& shape) { shape.planes_per_layer = 3; }).find("planes"),
            std::string::npos);
  EXPECT_NE(fault([](QuantShape& shape) { shape.heads = 0; }).find("heads"), std::string::npos);
  EXPECT_NE(fault([](QuantShape& shape) { shape.tokens = 0; }).find("tokens"), std::string::npos);
  EXPECT_NE(fault([](QuantShape& shape) { shape.channels = 0; }).find("channels"),
            std::string::npos);
  EXPECT_NE(fault([](QuantShape& shape) { shape.group = 7; }).find("group"), std::string::npos);
}

}  // namespace
}  // namespace reprise::kernels
