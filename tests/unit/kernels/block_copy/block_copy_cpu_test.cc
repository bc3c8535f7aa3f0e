#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/block_copy/block_copy.h"
#include "tests/unit/kernels/paged_engine.h"

namespace reprise::kernels {
namespace {

constexpr uint8_t kUntouched = 0xA5;

class BlockCopyCpuTest : public testing::TestWithParam<EngineShape> {
 protected:
  // Whole blocks, single layers, ragged ends, and pages that are not there.
  std::vector<BlockPart> Parts() const {
    const EngineShape& shape = GetParam();
    return {
        BlockPart{},
        BlockPart{.first_layer = 1, .layers = 1},
        BlockPart{.first_layer = shape.layers - 1},
        BlockPart{.first_layer = 0, .layers = 1, .tokens = 1},
        BlockPart{.tokens = shape.block_tokens - 1},
        BlockPart{.tokens = shape.block_tokens / 2 + 1},
        BlockPart{.tokens = 0},
    };
  }

  std::mt19937_64 random_{std::hash<std::string>()(GetParam().name)};
};

TEST_P(BlockCopyCpuTest, GatherWritesEveryByteOfItsPartAndNoOther) {
  PagedEngine engine(GetParam());
  ASSERT_STREQ(PlanFault(engine.plan()), "");
  for (const BlockPart& part : Parts()) {
    for (bool hole : {false, true}) {
      std::vector<int64_t> pages = engine.PickPages(random_);
      if (hole) pages[random_() % pages.size()] = kNoPage;
      std::vector<uint8_t> expected(engine.plan().block_bytes, kUntouched);
      std::vector<uint8_t> actual = expected;
      engine.NaiveGather(part, pages, expected);
      GatherBlockPart(engine.plan(), part, pages, actual.data());
      EXPECT_EQ(actual, expected) << "layers from " << part.first_layer << ", tokens "
                                  << part.tokens << ", hole " << hole;
    }
  }
}

TEST_P(BlockCopyCpuTest, ScatterWritesTheChosenRowsAndNothingElse) {
  PagedEngine actual(GetParam());
  PagedEngine expected(GetParam());
  ASSERT_EQ(actual.Snapshot(), expected.Snapshot());
  std::vector<uint8_t> block(actual.plan().block_bytes);
  for (const BlockPart& part : Parts()) {
    for (bool hole : {false, true}) {
      std::generate(block.begin(), block.end(), std::ref(random_));
      std::vector<int64_t> pages = actual.PickPages(random_);
      if (hole) pages[random_() % pages.size()] = kNoPage;
      expected.NaiveScatter(part, pages, block);
      ScatterBlockPart(actual.plan(), part, pages, block.data());
      EXPECT_EQ(actual.Snapshot(), expected.Snapshot())
          << "layers from " << part.first_layer << ", tokens " << part.tokens << ", hole " << hole;
    }
  }
}

TEST_P(BlockCopyCpuTest, ScatterAfterGatherRestoresThePages) {
  PagedEngine engine(GetParam());
  const std::vector<uint8_t> before = engine.Snapshot();
  const std::vector<int64_t> pages = engine.PickPages(random_);
  std::vector<uint8_t> block(engine.plan().block_bytes, kUntouched);
  GatherBlock(engine.plan(), pages, block.data());
  for (int64_t page : pages) {
    for (uint32_t plane = 0; plane < engine.plan().planes.size(); ++plane) {
      for (uint32_t head = 0; head < engine.plan().heads; ++head) {
        for (uint32_t token = 0; token < engine.plan().page_tokens; ++token) {
          for (uint32_t byte = 0; byte < engine.plan().row_data_bytes; ++byte) {
            engine.At(plane, page, head, token, byte) ^= 0xFF;
          }
        }
      }
    }
  }
  ASSERT_NE(engine.Snapshot(), before);
  ScatterBlock(engine.plan(), pages, block.data());
  EXPECT_EQ(engine.Snapshot(), before);
}

INSTANTIATE_TEST_SUITE_P(Layouts, BlockCopyCpuTest, testing::ValuesIn(EngineShapes()),
                         [](const auto& info) { return info.param.name; });

TEST(PlanFaultTest, NamesTheFieldThatIsWrong) {
  PagedEngine engine(EngineShapes()[0]);
  const auto fault = [&](const std::function<void(PagedPlan&)>& spoil) {
    PagedPlan plan = engine.plan();
    spoil(plan);
    return std::string(PlanFault(plan));
  };
  EXPECT_EQ(fault([](PagedPlan&) {}), "");
  EXPECT_NE(fault([](PagedPlan& plan) { plan.planes.pop_back(); }).find("planes"),
            std::string::npos);
  EXPECT_NE(fault([](PagedPlan& plan) { plan.planes.clear(); }).find("planes"), std::string::npos);
  EXPECT_NE(fault([](PagedPlan& plan) { plan.planes_per_layer = 0; }).find("planes_per_layer"),
            std::string::npos);
  EXPECT_NE(fault([](PagedPlan& plan) { plan.heads = 0; }).find("heads"), std::string::npos);
  EXPECT_NE(fault([](PagedPlan& plan) { plan.page_tokens = 0; }).find("page_tokens"),
            std::string::npos);
  EXPECT_NE(fault([](PagedPlan& plan) { plan.block_tokens = 17; }).find("block_tokens"),
            std::string::npos);
  EXPECT_NE(fault([](PagedPlan& plan) { plan.row_data_bytes = 0; }).find("row_data_bytes"),
            std::string::npos);
  EXPECT_NE(fault([](PagedPlan& plan) { plan.row_bytes += 16; }).find("row_bytes"),
            std::string::npos);
  EXPECT_NE(fault([](PagedPlan& plan) { ++plan.block_bytes; }).find("block_bytes"),
            std::string::npos);
  EXPECT_NE(fault([](PagedPlan& plan) { plan.planes[1].base = nullptr; }).find("base"),
            std::string::npos);
}

}  // namespace
}  // namespace reprise::kernels
