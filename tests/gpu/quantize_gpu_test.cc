#include "kernels/block_copy/block_copy.h"
#include "kernels/quantize/quantize.h"
#include "kernels/quantize/quantize_cuda.h"
#include "tests/gpu/gpu_fixture.h"
#include "tests/gpu/model_shapes.h"

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
  std::vector<Case> cases;
  const auto add = [&cases](const EngineShape& engine, ElementType element) {
    for (const char* codec : {"fp8_e4m3", "int8", "int4", "int4_g64"})
      cases.push_back({engine, element, codec});
  };
  for (const EngineShape& engine : ModelShapes()) add(engine, ElementType::kBf16);
  const std::vector<EngineShape> odd = {
      {.name = "nhd", .order = PageOrder::kNhd, .layers = 2, .heads = 3, .row_data_bytes = 256},
      {.name = "narrow", .order = PageOrder::kNhd, .heads = 3, .row_data_bytes = 132},
      {.name = "shifted", .order = PageOrder::kHnd, .row_data_bytes = 64, .base_shift_bytes = 4},
      {.name = "long",
       .order = PageOrder::kHnd,
       .row_data_bytes = 64,
       .page_tokens = 16,
       .block_tokens = 80},
  };
  for (const EngineShape& engine : odd) {
    for (ElementType element : {ElementType::kBf16, ElementType::kF16, ElementType::kF32})
      add(engine, element);
  }
  return cases;
}

class QuantizeGpuTest : public testing::TestWithParam<Case> {
 protected:
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
};

// The engine's bytes are random bits: NaN, infinities and denormals are among them.
TEST_P(QuantizeGpuTest, EncodingARunGivesTheCpusBytes) {
  const QuantShape shape = ShapeOf();
  MirroredEngine engine(GetParam().engine);
  const PagedPlan& plan = engine.host().plan();
  DeviceRun run(plan, GetParam().engine.pages, std::min(2u, BlocksFor(GetParam().engine)),
                EncodedBlockBytes(shape));
  Stream stream = Must(Stream::Create(0));
  const BlockPart part{.tokens = plan.block_tokens - 1};
  REPRISE_ASSERT_OK(EncodeRun(engine.gpu_plan(), shape, run.Run(part), stream.handle()));
  REPRISE_ASSERT_OK(stream.Synchronize());
  std::vector<uint8_t> expected = run.rubbish();
  std::vector<uint8_t> block(plan.block_bytes);
  for (uint32_t i = 0; i < run.block_count(); ++i) {
    GatherBlockPart(plan, run.PartOf(i, part), run.PagesOf(i), block.data());
    EncodeBlock(shape, block.data(), expected.data() + i * run.block_bytes());
  }
  EXPECT_TRUE(run.Download() == expected);
}

TEST_P(QuantizeGpuTest, DecodingARunGivesTheCpusPages) {
  const QuantShape shape = ShapeOf();
  MirroredEngine source(GetParam().engine, 3);
  MirroredEngine target(GetParam().engine, 4);
  const PagedPlan& plan = source.host().plan();
  DeviceRun run(plan, GetParam().engine.pages, std::min(2u, BlocksFor(GetParam().engine)),
                EncodedBlockBytes(shape));
  Stream stream = Must(Stream::Create(0));
  const BlockPart part{.first_layer = 1, .layers = 1};
  REPRISE_ASSERT_OK(EncodeRun(source.gpu_plan(), shape, run.Run(BlockPart{}), stream.handle()));
  REPRISE_ASSERT_OK(DecodeRun(target.gpu_plan(), shape, run.Run(part), stream.handle()));
  REPRISE_ASSERT_OK(stream.Synchronize());
  const std::vector<uint8_t> encoded = run.Download();
  std::vector<uint8_t> block(plan.block_bytes);
  for (uint32_t i = 0; i < run.block_count(); ++i) {
    DecodeBlock(shape, encoded.data() + i * run.block_bytes(), block.data());
    ScatterBlockPart(target.host().plan(), run.PartOf(i, part), run.PagesOf(i), block.data());
  }
  EXPECT_TRUE(target.DeviceSnapshot() == target.host().Snapshot());
}

INSTANTIATE_TEST_SUITE_P(Shapes, QuantizeGpuTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return NameOf(info.param); });

}  // namespace
}  // namespace reprise::kernels
