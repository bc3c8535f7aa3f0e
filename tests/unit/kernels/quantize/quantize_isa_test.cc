// Every instruction set that this CPU has against the scalar code, byte for byte.
#include "kernels/quantize/quantize_isa.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/quantize/quant_math.h"
#include "kernels/quantize/quantize.h"

namespace reprise::kernels {
namespace {

constexpr uint64_t kSeed = 83;

constexpr ElementType kElements[] = {ElementType::kBf16, ElementType::kF16, ElementType::kF32};
constexpr const char* kCodecs[] = {"fp8_e4m3", "int8", "int4", "int4_g64"};

std::string NameOf(ElementType element) {
  return element == ElementType::kBf16 ? "bf16" : element == ElementType::kF16 ? "f16" : "f32";
}

uint32_t BitsOf(ElementType element, float value) {
  if (element == ElementType::kF32) return quant::BitsOf(value);
  return element == ElementType::kF16 ? quant::FloatToF16(value) : quant::FloatToBf16(value);
}

// Bytes that begin 4 past a multiple of 16, with others on both sides that nobody may touch.
class Buffer {
  static constexpr uint64_t kAround = 64;  // words, of both sides together

 public:
  Buffer(uint64_t bytes, uint8_t rubbish) : bytes_(bytes), words_(bytes / 4 + kAround) {
    std::memset(words_.data(), rubbish, 4 * words_.size());
    before_ = words_;
    const auto address = reinterpret_cast<uintptr_t>(words_.data());
    first_ = (16 - address % 16) % 16 / 4 + 1;
  }
  uint8_t* data() { return reinterpret_cast<uint8_t*>(words_.data() + first_); }
  uint64_t size() const { return bytes_; }
  bool SurroundingsAreIntact() const {
    const auto* now = reinterpret_cast<const uint8_t*>(words_.data());
    const auto* then = reinterpret_cast<const uint8_t*>(before_.data());
    const uint64_t end = 4 * first_ + bytes_;
    return std::equal(now, now + 4 * first_, then) &&
           std::equal(now + end, now + 4 * words_.size(), then + end);
  }
  bool operator==(Buffer& other) {
    return bytes_ == other.bytes_ && std::memcmp(data(), other.data(), bytes_) == 0;
  }

 private:
  uint64_t bytes_;
  std::vector<uint32_t> words_;
  std::vector<uint32_t> before_;
  uint64_t first_;
};

// Where two buffers first differ, for people.
std::string Difference(Buffer& a, Buffer& b) {
  const uint8_t* at = std::mismatch(a.data(), a.data() + a.size(), b.data()).first;
  return "first at byte " + std::to_string(at - a.data()) + " of " + std::to_string(a.size());
}

void ExpectSameEncoding(const QuantShape& shape, Buffer& block) {
  Buffer expected(EncodedBlockBytes(shape), 0xA5);
  EncodeBlockWith(kQuantizeScalar, shape, block.data(), expected.data());
  uint8_t rubbish = 0;
  for (const QuantizeIsa* const* isa = UsableQuantizeIsas(); *isa != &kQuantizeScalar; ++isa) {
    Buffer actual(EncodedBlockBytes(shape), ++rubbish);
    EncodeBlockWith(**isa, shape, block.data(), actual.data());
    EXPECT_TRUE(actual == expected) << (*isa)->name << ", " << Difference(actual, expected);
    EXPECT_TRUE(actual.SurroundingsAreIntact()) << (*isa)->name;
  }
}

void ExpectSameDecoding(const QuantShape& shape, Buffer& encoded) {
  Buffer expected(LayoutOf(shape).plain_block_bytes, 0xA5);
  DecodeBlockWith(kQuantizeScalar, shape, encoded.data(), expected.data());
  uint8_t rubbish = 0;
  for (const QuantizeIsa* const* isa = UsableQuantizeIsas(); *isa != &kQuantizeScalar; ++isa) {
    Buffer actual(LayoutOf(shape).plain_block_bytes, ++rubbish);
    DecodeBlockWith(**isa, shape, encoded.data(), actual.data());
    EXPECT_TRUE(actual == expected) << (*isa)->name << ", " << Difference(actual, expected);
    EXPECT_TRUE(actual.SurroundingsAreIntact()) << (*isa)->name;
  }
}

void ExpectSameTrip(const QuantShape& shape, Buffer& block) {
  ExpectSameEncoding(shape, block);
  Buffer encoded(EncodedBlockBytes(shape), 0);
  EncodeBlockWith(kQuantizeScalar, shape, block.data(), encoded.data());
  ExpectSameDecoding(shape, encoded);
}

// Calls next(index of the number) for the bits of each number; padding is left as it is.
template <typename Next>
void Fill(const QuantShape& shape, Buffer& block, Next next) {
  const QuantLayout layout = LayoutOf(shape);
  uint64_t index = 0;
  for (uint64_t row = 0; row < layout.plain_block_bytes / layout.row_bytes; ++row) {
    for (uint32_t channel = 0; channel < shape.channels; ++channel) {
      const uint32_t bits = next(index++);
      std::memcpy(block.data() + row * layout.row_bytes + channel * layout.element_bytes, &bits,
                  layout.element_bytes);
    }
  }
}

// What is no ordinary number, or is at the edge of something.
std::vector<uint32_t> SpecialBits(ElementType element) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<uint32_t> bits;
  for (float value :
       {0.0f, 1.0f, 0.5f, 448.0f, 464.0f, 65504.0f, 65520.0f, 1e30f, 6e-8f, 3e-8f, 6.1e-5f, 1e-39f,
        1e-45f, quant::kScaleMin, quant::kBf16Max, quant::kF32Max, 127.0f, 15.0f, kInfinity}) {
    bits.push_back(BitsOf(element, value));
    bits.push_back(BitsOf(element, -value));
  }
  // Both signs of NaN, quiet and signalling.
  if (element == ElementType::kF32) {
    bits.insert(bits.end(), {0x7FC00000u, 0xFFC00000u, 0x7F800001u, 0xFFBFFFFFu, 0x7FFFFFFFu});
  } else {
    const uint32_t infinity = element == ElementType::kF16 ? 0x7C00u : 0x7F80u;
    bits.insert(bits.end(), {infinity | 1u, infinity | 0x8001u, 0x7FFFu, 0xFFFFu});
  }
  return bits;
}

// Numbers as K/V caches have them.
float LikeAModel(std::mt19937_64& random) {
  std::normal_distribution<float> normal(0, 1);
  return random() % 32 == 0 ? 20 + normal(random) : normal(random);
}

// Halves of integers, in heads and groups whose scale is a power of two: int8's and int4's ties.
float Halfway(const QuantShape& shape, uint64_t index, std::mt19937_64& random) {
  const bool int4 = shape.codec == Codec::kInt4;
  const int steps = int4 ? 15 : 127;
  // The ends of the range are in every group, whichever way it runs.
  const uint64_t place = index % shape.channels + index / shape.channels;
  if (place % 8 == 0) return static_cast<float>(steps);
  if (place % 8 == 1) return int4 ? 0.0f : static_cast<float>(-steps);
  const auto halves = static_cast<float>(random() % (2 * steps + 1)) / 2;
  return int4 || random() % 2 == 0 ? halves : -halves;
}

struct Case {
  std::string name;
  QuantShape shape;
};

std::vector<Case> Cases() {
  const std::pair<const char*, QuantShape> kShapes[] = {
      {"llama", {.layers = 1, .planes_per_layer = 2, .heads = 2, .tokens = 16, .channels = 128}},
      {"mla", {.layers = 1, .planes_per_layer = 1, .heads = 1, .tokens = 9, .channels = 576}},
      {"mla_token", {.layers = 1, .planes_per_layer = 1, .heads = 1, .tokens = 1, .channels = 512}},
      {"phi", {.layers = 1, .planes_per_layer = 2, .heads = 2, .tokens = 16, .channels = 80}},
      {"small_heads",
       {.layers = 1, .planes_per_layer = 2, .heads = 1, .tokens = 128, .channels = 64}},
      {"wide", {.layers = 1, .planes_per_layer = 2, .heads = 1, .tokens = 2, .channels = 2200}},
      {"token", {.layers = 1, .planes_per_layer = 2, .heads = 3, .tokens = 1, .channels = 96}},
      {"tokens_65", {.layers = 1, .planes_per_layer = 2, .heads = 1, .tokens = 65, .channels = 36}},
  };
  std::vector<std::pair<std::string, QuantShape>> shapes(std::begin(kShapes), std::end(kShapes));
  // No multiple of a vector or of a group, and each way to end a row.
  for (uint32_t channels : {1, 2, 3, 5, 7, 9, 15, 17, 31, 33, 63, 65, 67, 70, 101}) {
    shapes.emplace_back("odd_" + std::to_string(channels), QuantShape{.layers = 1,
                                                                      .planes_per_layer = 2,
                                                                      .heads = 2,
                                                                      .tokens = 1 + channels % 37,
                                                                      .channels = channels});
  }
  std::vector<Case> cases;
  for (const char* codec : kCodecs) {
    for (ElementType element : kElements) {
      for (const auto& [shape_name, shape] : shapes) {
        QuantShape chosen = WithCodec(shape, codec).value();
        chosen.element = element;
        cases.push_back({std::string(codec) + "_" + NameOf(element) + "_" + shape_name, chosen});
      }
    }
  }
  return cases;
}

// There is nothing to compare where the scalar code is alone.
bool NoOthers() {
  return UsableQuantizeIsas()[0] == &kQuantizeScalar;
}
constexpr char kNoOthers[] = "this CPU has no instruction set that the codecs are written for";

class QuantizeIsaTest : public testing::TestWithParam<Case> {
 protected:
  QuantizeIsaTest() : block_(LayoutOf(shape()).plain_block_bytes, 0x7F) {}

  void SetUp() override {
    if (NoOthers()) GTEST_SKIP() << kNoOthers;
  }

  const QuantShape& shape() const { return GetParam().shape; }

  testing::ScopedTrace trace_{__FILE__, __LINE__, "seed " + std::to_string(kSeed)};
  std::mt19937_64 random_{kSeed};
  Buffer block_;  // its padding is NaN, which must not count
};

TEST_P(QuantizeIsaTest, NumbersLikeAModelsAreTheSame) {
  for (float spread : {1.0f, 1e-6f, 3000.0f}) {
    Fill(shape(), block_,
         [&](uint64_t) { return BitsOf(shape().element, spread * LikeAModel(random_)); });
    ExpectSameTrip(shape(), block_);
  }
}

TEST_P(QuantizeIsaTest, AnyBitsAreTheSame) {
  for (int round = 0; round < 2; ++round) {
    Fill(shape(), block_, [&](uint64_t) { return static_cast<uint32_t>(random_()); });
    ExpectSameTrip(shape(), block_);
  }
}

TEST_P(QuantizeIsaTest, SpecialNumbersAreTheSame) {
  const std::vector<uint32_t> specials = SpecialBits(shape().element);
  for (uint64_t one_in : {1, 20}) {
    for (int round = 0; round < 2; ++round) {
      Fill(shape(), block_, [&](uint64_t) {
        if (random_() % one_in == 0) return specials[random_() % specials.size()];
        return BitsOf(shape().element, LikeAModel(random_));
      });
      ExpectSameTrip(shape(), block_);
    }
  }
}

TEST_P(QuantizeIsaTest, ZerosOfBothSignsAreTheSame) {
  const uint32_t negative = shape().element == ElementType::kF32 ? 0x80000000u : 0x8000u;
  const uint32_t nan = shape().element == ElementType::kF32 ? 0xFFFFFFFFu : 0xFFFFu;
  for (uint64_t one_in : {2, 8, 40, 1'000'000}) {
    // Zeros alone, and beside NaN (which counts as zero) and what is above or below all of them.
    for (uint32_t other :
         {0u, nan, BitsOf(shape().element, 1.0f), BitsOf(shape().element, -1.0f)}) {
      Fill(shape(), block_, [&](uint64_t) {
        if (random_() % one_in == 0) return other;
        return random_() % one_in == 0 ? 0 : negative;
      });
      ExpectSameTrip(shape(), block_);
    }
  }
}

TEST_P(QuantizeIsaTest, TiesAreTheSame) {
  for (int round = 0; round < 2; ++round) {
    const float power = std::ldexp(1.0f, 3 * round - 5);
    Fill(shape(), block_, [&](uint64_t index) {
      return BitsOf(shape().element, power * Halfway(shape(), index, random_));
    });
    ExpectSameTrip(shape(), block_);
  }
}

TEST_P(QuantizeIsaTest, AnyEncodedBytesAreDecodedTheSame) {
  Buffer encoded(EncodedBlockBytes(shape()), 0);
  for (int round = 0; round < 2; ++round) {
    std::generate(encoded.data(), encoded.data() + encoded.size(),
                  [&] { return static_cast<uint8_t>(random_()); });
    ExpectSameDecoding(shape(), encoded);
  }
}

INSTANTIATE_TEST_SUITE_P(Codecs, QuantizeIsaTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

TEST(QuantizeIsasTest, TheScalarCodeIsTheLastOfThem) {
  const QuantizeIsa* last = nullptr;
  for (const QuantizeIsa* const* isa = UsableQuantizeIsas(); *isa != nullptr; ++isa) last = *isa;
  EXPECT_EQ(last, &kQuantizeScalar);
}

// All 65,536 of a 16-bit type, in the order of `bits_of`.
template <typename BitsOfIndex>
void ExpectSameForEvery(QuantShape shape, BitsOfIndex bits_of) {
  for (const char* codec : kCodecs) {
    for (ElementType element : {ElementType::kBf16, ElementType::kF16}) {
      SCOPED_TRACE(std::string(codec) + " " + NameOf(element));
      shape = WithCodec(shape, codec).value();
      shape.element = element;
      ASSERT_EQ(LayoutOf(shape).plain_block_bytes, 2u * 0x10000);
      Buffer block(LayoutOf(shape).plain_block_bytes, 0);
      Fill(shape, block, bits_of);
      ExpectSameTrip(shape, block);
    }
  }
}

TEST(QuantizeIsasTest, Every16BitNumberAmongItsNeighboursIsTheSame) {
  if (NoOthers()) GTEST_SKIP() << kNoOthers;
  const auto in_order = [](uint64_t index) { return static_cast<uint32_t>(index); };
  ExpectSameForEvery(
      {.layers = 1, .planes_per_layer = 1, .heads = 512, .tokens = 1, .channels = 128}, in_order);
  ExpectSameForEvery(
      {.layers = 1, .planes_per_layer = 2, .heads = 1024, .tokens = 1, .channels = 32}, in_order);
  ExpectSameForEvery(
      {.layers = 1, .planes_per_layer = 2, .heads = 16, .tokens = 64, .channels = 32}, in_order);
}

TEST(QuantizeIsasTest, Every16BitNumberAmongAllOthersIsTheSame) {
  if (NoOthers()) GTEST_SKIP() << kNoOthers;
  const auto scattered = [](uint64_t index) {
    return static_cast<uint32_t>(index * 40'503 % 65'536);
  };
  ExpectSameForEvery(
      {.layers = 1, .planes_per_layer = 1, .heads = 1, .tokens = 512, .channels = 128}, scattered);
  ExpectSameForEvery(
      {.layers = 1, .planes_per_layer = 2, .heads = 4, .tokens = 64, .channels = 128}, scattered);
}

TEST(QuantizeIsasTest, EveryCodeIsTheSameUnderScalesThatMakeTiesAndEdges) {
  if (NoOthers()) GTEST_SKIP() << kNoOthers;
  std::mt19937_64 random(kSeed);
  SCOPED_TRACE("seed " + std::to_string(kSeed));
  for (const char* codec : {"fp8_e4m3", "int8"}) {
    for (ElementType element : kElements) {
      QuantShape shape = {.layers = 1, .planes_per_layer = 1, .heads = 4096};
      shape.tokens = 1;
      shape.channels = 256;
      shape = WithCodec(shape, codec).value();
      shape.element = element;
      Buffer encoded(EncodedBlockBytes(shape), 0);
      for (uint32_t head = 0; head < shape.heads; ++head) {
        // All exponents and signs; few bits of the fraction, so that products end halfway often.
        const uint32_t fraction = static_cast<uint32_t>(random() % 0x1000) << 11;
        const uint32_t bits = (head % 512) << 23 | (head < 512 ? 0 : fraction);
        std::memcpy(encoded.data() + 4 * head, &bits, 4);
        for (uint32_t code = 0; code < 256; ++code) {
          encoded.data()[LayoutOf(shape).codes_at + head * 256 + code] = static_cast<uint8_t>(code);
        }
      }
      SCOPED_TRACE(std::string(codec) + " " + NameOf(element));
      ExpectSameDecoding(shape, encoded);
    }
  }
}

TEST(QuantizeIsasTest, EveryStepAndEveryLowAreUnpackedTheSame) {
  if (NoOthers()) GTEST_SKIP() << kNoOthers;
  std::mt19937_64 random(kSeed);
  SCOPED_TRACE("seed " + std::to_string(kSeed));
  for (uint32_t planes : {1u, 2u}) {
    for (ElementType element : kElements) {
      QuantShape shape = {.layers = 1, .planes_per_layer = planes, .heads = 0x10000 / 128};
      shape.tokens = 16;
      shape.channels = planes == 1 ? 256 : 128;  // as many groups of keys as of a latent
      shape = WithCodec(shape, "int4").value();
      shape.element = element;
      Buffer encoded(EncodedBlockBytes(shape), 0);
      std::generate(encoded.data(), encoded.data() + encoded.size(),
                    [&] { return static_cast<uint8_t>(random()); });
      ASSERT_EQ(LayoutOf(shape).parameter_data_bytes[0], 4u * 0x10000);
      for (bool every_low : {false, true}) {
        for (uint32_t half = 0; half < 0x10000; ++half) {
          const auto other = static_cast<uint32_t>(random() % 0x10000);
          const uint32_t packed = every_low ? half << 16 | other : other << 16 | half;
          std::memcpy(encoded.data() + 4 * half, &packed, 4);
        }
        SCOPED_TRACE(NameOf(element) + ", planes " + std::to_string(planes));
        ExpectSameDecoding(shape, encoded);
      }
    }
  }
}

}  // namespace
}  // namespace reprise::kernels
