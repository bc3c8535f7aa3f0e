// The index arithmetic of the copy kernels, run here: thread by thread, against the byte-by-byte
// oracle.
#include "kernels/block_copy/copy_geometry.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/block_copy/block_copy_cuda.h"
#include "proto/types/refusal.h"
#include "tests/unit/kernels/paged_engine.h"

namespace reprise::kernels {
namespace {

TEST(FastDivideTest, IsDivision) {
  std::mt19937_64 random(23);
  std::vector<uint32_t> divisors = {1,   2,    3,      5,      7,          16,        72,
                                    130, 4096, 65'535, 65'536, 0x7FFFFFFE, 0x7FFFFFFF};
  for (int i = 0; i < 500; ++i)
    divisors.push_back(1 + static_cast<uint32_t>(random() % 0x7FFFFFFF));
  for (uint32_t divisor : divisors) {
    const FastDivide divide(divisor);
    EXPECT_EQ(divide.divisor(), divisor);
    std::vector<uint32_t> numbers = {0, 1, divisor - 1, divisor, 0x7FFFFFFE, 0x7FFFFFFF};
    const uint32_t multiple = 0x7FFFFFFF / divisor * divisor;
    numbers.push_back(multiple);
    numbers.push_back(multiple - 1);
    for (int i = 0; i < 500; ++i) numbers.push_back(static_cast<uint32_t>(random()) & 0x7FFFFFFF);
    for (uint32_t number : numbers) {
      ASSERT_EQ(divide.Quotient(number), number / divisor) << number << " / " << divisor;
    }
  }
}

class CopyGeometryTest : public testing::TestWithParam<EngineShape> {};

TEST_P(CopyGeometryTest, ThreadsTogetherGatherAndScatterLikeTheOracle) {
  PagedEngine engine(GetParam());
  PagedEngine target(GetParam(), 2);
  PagedEngine expected_target(GetParam(), 2);
  const PagedPlan& plan = engine.plan();
  const CopyGeometry geometry = MakeCopyGeometry(plan);
  std::mt19937_64 random(29);
  for (uint32_t tokens : {plan.block_tokens, plan.block_tokens - 1, 1u, 0u}) {
    std::vector<int64_t> pages = engine.PickPages(random);
    if (tokens == plan.block_tokens) pages.back() = kNoPage;
    std::vector<uint8_t> expected(plan.block_bytes, 0xA5);
    std::vector<uint8_t> actual(plan.block_bytes, 0xA5);
    const BlockPart part{.tokens = tokens};
    engine.NaiveGather(part, pages, expected);
    expected_target.NaiveScatter(part, pages, expected);
    for (uint32_t index = 0; index < plan.planes.size(); ++index) {
      for (uint32_t unit = 0; unit < geometry.units_per_plane; ++unit) {
        uint8_t* at =
            actual.data() + index * geometry.plane_bytes + uint64_t{unit} * geometry.unit_bytes;
        const uint8_t* from = EngineUnit(geometry, plan.planes[index], pages.data(), tokens, unit);
        if (from == nullptr) {
          std::memset(at, 0, geometry.unit_bytes);
        } else {
          ASSERT_EQ(reinterpret_cast<uintptr_t>(from) % geometry.unit_bytes, 0u);
          std::memcpy(at, from, geometry.unit_bytes);
        }
        uint8_t* to = EngineUnit(geometry, target.plan().planes[index], pages.data(), tokens, unit);
        if (to != nullptr) std::memcpy(to, at, geometry.unit_bytes);
      }
    }
    EXPECT_EQ(actual, expected) << "tokens " << tokens;
    EXPECT_EQ(target.Snapshot(), expected_target.Snapshot()) << "tokens " << tokens;
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, CopyGeometryTest, testing::ValuesIn(EngineShapes()),
                         [](const auto& info) { return info.param.name; });

TEST(UnitBytesTest, IsTheWidestThatEverythingAllows) {
  const auto unit = [](const EngineShape& shape) { return UnitBytesOf(PagedEngine(shape).plan()); };
  EXPECT_EQ(unit({.row_data_bytes = 256}), 16u);
  EXPECT_EQ(unit({.row_data_bytes = 72, .row_gap_bytes = 8}), 8u);
  EXPECT_EQ(unit({.row_data_bytes = 64, .base_shift_bytes = 4}), 4u);
  EXPECT_EQ(unit({.row_data_bytes = 130}), 2u);
  EXPECT_EQ(unit({.row_data_bytes = 64, .base_shift_bytes = 1}), 1u);
}

TEST(GpuPlanTest, AFaultyPlanIsRefusedBeforeAnyDeviceIsTouched) {
  PagedPlan plan = PagedEngine(EngineShape{}).plan();
  plan.block_tokens = 17;
  const absl::Status status = GpuPlan::Create(0, plan).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(RefusalReason(status), "PLAN_INVALID");
}

}  // namespace
}  // namespace reprise::kernels
