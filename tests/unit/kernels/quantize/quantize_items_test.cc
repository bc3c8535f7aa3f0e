// The quantisation kernels' threads, run here one after another: what they write together is what
// the CPU writes.
#include "kernels/quantize/quantize_items.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "kernels/block_copy/block_copy.h"
#include "kernels/quantize/quantize.h"
#include "tests/unit/kernels/paged_engine.h"

namespace reprise::kernels {
namespace {

struct Case {
  EngineShape engine;
  ElementType element;
  std::string codec;
};

std::string NameOf(const Case& test) {
  const char* element = test.element == ElementType::kF32   ? "f32"
                        : test.element == ElementType::kF16 ? "f16"
                                                            : "bf16";
  return test.codec + "_" + element + "_" + test.engine.name;
}

std::vector<Case> Cases() {
  const std::vector<EngineShape> engines = {
      {.name = "nhd", .order = PageOrder::kNhd, .layers = 2, .heads = 3, .row_data_bytes = 256},
      {.name = "hnd_packed", .order = PageOrder::kHnd, .packed = true, .row_data_bytes = 128},
      {.name = "mla", .planes_per_layer = 1, .layers = 2, .heads = 1, .row_data_bytes = 1152},
      {.name = "long",
       .order = PageOrder::kHnd,
       .layers = 1,
       .row_data_bytes = 64,
       .page_tokens = 16,
       .block_tokens = 80},
      {.name = "narrow", .order = PageOrder::kNhd, .heads = 3, .row_data_bytes = 132},
      {.name = "shifted", .order = PageOrder::kNhd, .row_data_bytes = 64, .base_shift_bytes = 4},
      {.name = "one_element", .order = PageOrder::kHnd, .heads = 5, .row_data_bytes = 4},
  };
  std::vector<Case> cases;
  for (const EngineShape& engine : engines) {
    for (ElementType element : {ElementType::kBf16, ElementType::kF16, ElementType::kF32}) {
      for (const char* codec : {"fp8_e4m3", "int8", "int4", "int4_g64"}) {
        cases.push_back({engine, element, codec});
      }
    }
  }
  return cases;
}

constexpr uint32_t kThreads = 128;
constexpr uint32_t kHeld = 3;

template <typename Element, uint32_t kVector>
void EncodeHeldHead(const QuantLaunch& launch, const PlaneWork& work, uint32_t head) {
  HeldShare<Element, kVector, kHeld> shares[kThreads];
  float largest = 0;
  for (uint32_t thread = 0; thread < kThreads; ++thread) {
    largest = std::max(largest, shares[thread].Load(launch, work, head, thread, kThreads));
  }
  for (uint32_t thread = 0; thread < kThreads; ++thread) {
    EncodeHeldThread(launch, work, head, largest, thread, kThreads, shares[thread]);
  }
}

// Threads of one plane of one block, whatever the codec.
template <typename Element, uint32_t kVector>
void EncodePlane(const QuantLaunch& launch, uint32_t block, uint32_t plane) {
  const PlaneWork work = WorkOn(launch, block, plane);
  if (launch.shape.codec == Codec::kInt4) {
    const uint32_t items = work.per_channel ? KeyItems(launch) : TokenItems(launch);
    for (uint32_t item = 0; item < items; ++item) {
      if (work.per_channel) {
        EncodeKeyItem<Element, kVector>(launch, work, item);
      } else {
        EncodeTokenItem<Element, kVector>(launch, work, item);
      }
    }
    return;
  }
  const uint32_t vectors = launch.shape.tokens * launch.row_vectors.divisor();
  for (uint32_t head = 0; head < launch.shape.heads; ++head) {
    // Both ways that the GPU goes, by turns where both do.
    if (vectors <= kHeld * kThreads && head % 2 == 0) {
      EncodeHeldHead<Element, kVector>(launch, work, head);
      continue;
    }
    float largest = 0;
    for (uint32_t thread = 0; thread < kThreads; ++thread) {
      largest = std::max(largest,
                         LargestOfThread<Element, kVector>(launch, work, head, thread, kThreads));
    }
    for (uint32_t thread = 0; thread < kThreads; ++thread) {
      EncodeScaledThread<Element, kVector>(launch, work, head, largest, thread, kThreads);
    }
  }
}

template <typename Element>
void RunThreads(const QuantLaunch& launch, bool encode) {
  constexpr uint32_t kWide = 16 / sizeof(typename Element::Bits);
  for (uint32_t block = 0; block < launch.run.block_count; ++block) {
    for (uint32_t i = 0; i < launch.run.plane_count; ++i) {
      const uint32_t plane = launch.run.first_plane + i;
      if (encode) {
        launch.wide ? EncodePlane<Element, kWide>(launch, block, plane)
                    : EncodePlane<Element, kNarrowVector>(launch, block, plane);
        continue;
      }
      const PlaneWork work = WorkOn(launch, block, plane);
      for (uint32_t item = 0; item < DecodeItems(launch); ++item) {
        launch.wide ? DecodeItem<Element, kWide>(launch, work, item)
                    : DecodeItem<Element, kNarrowVector>(launch, work, item);
      }
    }
  }
}

void RunThreads(const QuantLaunch& launch, bool encode) {
  switch (launch.shape.element) {
    case ElementType::kF32:
      return RunThreads<quant::F32>(launch, encode);
    case ElementType::kF16:
      return RunThreads<quant::F16>(launch, encode);
    case ElementType::kBf16:
      return RunThreads<quant::Bf16>(launch, encode);
  }
}

// Encoded blocks, 16-byte aligned, with rubbish in them.
struct EncodedBlocks {
  EncodedBlocks(uint32_t blocks, uint64_t bytes, uint64_t rubbish)
      : words(blocks * bytes / 8, rubbish) {
    for (uint32_t i = 0; i < blocks; ++i) {
      table.push_back(reinterpret_cast<uint8_t*>(words.data()) + i * bytes);
    }
  }
  std::vector<uint64_t> words;
  std::vector<uint8_t*> table;
};

class QuantizeItemsTest : public testing::TestWithParam<Case> {
 protected:
  static constexpr uint32_t kBlocks = 3;

  QuantShape ShapeOf() const {
    const EngineShape& engine = GetParam().engine;
    QuantShape shape;
    shape.element = GetParam().element;
    shape.layers = engine.layers;
    shape.planes_per_layer = engine.planes_per_layer;
    shape.heads = engine.heads;
    shape.tokens = engine.block_tokens;
    shape.channels = engine.row_data_bytes / ElementBytes(shape.element);
    return WithCodec(shape, GetParam().codec).value();
  }

  // Random bits are NaN, infinities and denormals too; `tokens` of the last block are there, and
  // one page is not.
  RunLaunch LaunchOn(const PagedPlan& plan, uint32_t tokens, const BlockPart& part) {
    std::mt19937_64 random(59);
    pages_.resize(uint64_t{kBlocks} * plan.PagesPerBlock());
    for (size_t i = 0; i < pages_.size(); ++i) pages_[i] = static_cast<int64_t>(i);
    std::shuffle(pages_.begin(), pages_.end(), random);
    pages_[random() % pages_.size()] = kNoPage;
    RunLaunch launch;
    launch.geometry = MakeCopyGeometry(plan);
    launch.planes = plan.planes.data();
    launch.first_plane = part.first_layer * plan.planes_per_layer;
    launch.plane_count =
        static_cast<uint32_t>(plan.planes.size()) - part.first_layer * plan.planes_per_layer;
    launch.page_table = pages_.data();
    launch.block_count = kBlocks;
    launch.last_block_tokens = tokens;
    return launch;
  }

  BlockPart PartOf(uint32_t block, uint32_t tokens, const BlockPart& part) const {
    BlockPart result = part;
    if (block + 1 == kBlocks) result.tokens = tokens;
    return result;
  }
  std::span<const int64_t> PagesOf(const PagedPlan& plan, uint32_t block) const {
    return {pages_.data() + uint64_t{block} * plan.PagesPerBlock(), plan.PagesPerBlock()};
  }

  std::vector<int64_t> pages_;
};

TEST_P(QuantizeItemsTest, ThreadsTogetherEncodeWhatTheCpuGathersAndEncodes) {
  const QuantShape shape = ShapeOf();
  ASSERT_STREQ(QuantFault(shape), "");
  PagedEngine engine(GetParam().engine);
  const PagedPlan& plan = engine.plan();
  for (uint32_t tokens : {plan.block_tokens, plan.block_tokens - 3}) {
    RunLaunch run = LaunchOn(plan, tokens, BlockPart{});
    EncodedBlocks actual(kBlocks, EncodedBlockBytes(shape), 0xDEADBEEFDEADBEEFull);
    run.block_table = actual.table.data();
    RunThreads(MakeQuantLaunch(run, shape), true);
    EncodedBlocks expected(kBlocks, EncodedBlockBytes(shape), 0);
    std::vector<uint8_t> block(plan.block_bytes);
    for (uint32_t i = 0; i < kBlocks; ++i) {
      GatherBlockPart(plan, PartOf(i, tokens, BlockPart{}), PagesOf(plan, i), block.data());
      EncodeBlock(shape, block.data(), expected.table[i]);
    }
    EXPECT_EQ(actual.words, expected.words) << "tokens " << tokens;
  }
}

TEST_P(QuantizeItemsTest, ThreadsTogetherScatterWhatTheCpuDecodes) {
  const QuantShape shape = ShapeOf();
  PagedEngine source(GetParam().engine, 3);
  PagedEngine actual(GetParam().engine, 4);
  PagedEngine expected(GetParam().engine, 4);
  const PagedPlan& plan = actual.plan();
  const uint32_t tokens = plan.block_tokens - 1;
  const BlockPart part{.first_layer = GetParam().engine.layers - 1};
  RunLaunch run = LaunchOn(plan, tokens, part);
  EncodedBlocks encoded(kBlocks, EncodedBlockBytes(shape), 0);
  run.block_table = encoded.table.data();
  std::vector<uint8_t> block(plan.block_bytes);
  for (uint32_t i = 0; i < kBlocks; ++i) {
    GatherBlock(source.plan(), PagesOf(plan, i), block.data());
    EncodeBlock(shape, block.data(), encoded.table[i]);
    DecodeBlock(shape, encoded.table[i], block.data());
    ScatterBlockPart(expected.plan(), PartOf(i, tokens, part), PagesOf(plan, i), block.data());
  }
  RunThreads(MakeQuantLaunch(run, shape), false);
  EXPECT_EQ(actual.Snapshot(), expected.Snapshot());
}

INSTANTIATE_TEST_SUITE_P(Layouts, QuantizeItemsTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return NameOf(info.param); });

}  // namespace
}  // namespace reprise::kernels
