#include "kernels/block_copy/block_copy.h"

#include "tests/gpu/gpu_fixture.h"
#include "tests/gpu/model_shapes.h"

namespace reprise::kernels {
namespace {

class BlockCopyGpuTest : public testing::TestWithParam<EngineShape> {
 protected:
  std::vector<BlockPart> Parts() const {
    const EngineShape& shape = GetParam();
    return {BlockPart{}, BlockPart{.first_layer = shape.layers / 2, .layers = 1},
            BlockPart{.tokens = shape.block_tokens - shape.block_tokens / 3}};
  }
};

TEST_P(BlockCopyGpuTest, GatherOfARunIsTheCpusGather) {
  MirroredEngine engine(GetParam());
  Stream stream = Must(Stream::Create(0));
  const PagedPlan& plan = engine.host().plan();
  for (const BlockPart& part : Parts()) {
    DeviceRun run(plan, GetParam().pages, BlocksFor(GetParam()), plan.block_bytes);
    REPRISE_ASSERT_OK(GatherRun(engine.gpu_plan(), run.Run(part), stream.handle()));
    REPRISE_ASSERT_OK(stream.Synchronize());
    std::vector<uint8_t> expected = run.rubbish();
    for (uint32_t i = 0; i < run.block_count(); ++i) {
      GatherBlockPart(plan, run.PartOf(i, part), run.PagesOf(i),
                      expected.data() + i * plan.block_bytes);
    }
    EXPECT_TRUE(run.Download() == expected)
        << "layers from " << part.first_layer << ", tokens " << part.tokens;
  }
}

TEST_P(BlockCopyGpuTest, ScatterOfARunIsTheCpusScatter) {
  for (const BlockPart& part : Parts()) {
    MirroredEngine source(GetParam(), 3);
    MirroredEngine target(GetParam(), 4);
    Stream stream = Must(Stream::Create(0));
    const PagedPlan& plan = source.host().plan();
    DeviceRun run(plan, GetParam().pages, BlocksFor(GetParam()), plan.block_bytes);
    REPRISE_ASSERT_OK(GatherRun(source.gpu_plan(), run.Run(BlockPart{}), stream.handle()));
    REPRISE_ASSERT_OK(ScatterRun(target.gpu_plan(), run.Run(part), stream.handle()));
    REPRISE_ASSERT_OK(stream.Synchronize());
    const std::vector<uint8_t> blocks = run.Download();
    for (uint32_t i = 0; i < run.block_count(); ++i) {
      ScatterBlockPart(target.host().plan(), run.PartOf(i, part), run.PagesOf(i),
                       blocks.data() + i * plan.block_bytes);
    }
    EXPECT_TRUE(target.DeviceSnapshot() == target.host().Snapshot())
        << "layers from " << part.first_layer << ", tokens " << part.tokens;
  }
}

// Blocks in pinned host memory are reached by the same kernels.
TEST_P(BlockCopyGpuTest, GatherIntoPinnedMemoryIsTheSame) {
  MirroredEngine engine(GetParam());
  Stream stream = Must(Stream::Create(0));
  const PagedPlan& plan = engine.host().plan();
  PinnedBuffer block = Must(PinnedBuffer::Create(plan.block_bytes));
  std::fill(block.bytes().begin(), block.bytes().end(), 0xA5);
  std::vector<int64_t> pages(plan.PagesPerBlock());
  for (uint32_t i = 0; i < pages.size(); ++i) pages[i] = (i * 5 + 1) % GetParam().pages;
  const DeviceBuffer page_table = Upload(pages);
  const DeviceBuffer block_table = Upload(std::vector<uint8_t*>{block.data()});
  BlockRun run;
  run.page_table = reinterpret_cast<const int64_t*>(page_table.data());
  run.block_table = reinterpret_cast<uint8_t* const*>(block_table.data());
  run.block_count = 1;
  REPRISE_ASSERT_OK(GatherRun(engine.gpu_plan(), run, stream.handle()));
  REPRISE_ASSERT_OK(stream.Synchronize());
  std::vector<uint8_t> expected(plan.block_bytes);
  GatherBlock(plan, pages, expected.data());
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), block.bytes().begin()));
}

INSTANTIATE_TEST_SUITE_P(Shapes, BlockCopyGpuTest, testing::ValuesIn(GpuShapes()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace reprise::kernels
