#include <cstring>

#include "kernels/checksum/checksum.h"
#include "kernels/checksum/checksum_cuda.h"
#include "kernels/runtime/gpu_status.h"
#include "tests/gpu/gpu_fixture.h"

namespace reprise::kernels {
namespace {

struct Case {
  std::string name;
  uint32_t blocks;
  uint64_t block_bytes;
  uint64_t section_bytes;
  uint64_t shift_bytes;  // of every block against 16-byte alignment
};

std::vector<Case> Cases() {
  std::vector<Case> cases = {
      {"Llama3_8B", 64, 2 << 20, 64 << 10, 0},
      {"Llama3_70B", 16, 5 << 20, 64 << 10, 0},
      {"DeepSeek_V3", 32, 61 * 73'728, 73'728, 0},
      {"one_chunk", 3, 16 << 10, 16 << 10, 0},
      {"less_than_a_chunk", 7, 1'000, 1'000, 0},
      {"one_byte", 5, 1, 1, 0},
      {"chunk_and_a_byte", 5, (16 << 10) + 1, (16 << 10) + 1, 0},
      {"ragged_last_section", 4, 3 * 40'000 + 123, 40'000, 0},
      {"many_small_sections", 3, 100'000, 240, 0},
      {"unaligned", 4, 1 << 20, 64 << 10, 1},
      {"aligned_to_8", 4, 1 << 20, 64 << 10, 8},
      {"odd_section", 4, 200'001, 33'333, 0},
  };
  std::mt19937_64 random(67);
  for (int i = 0; i < 40; ++i) {
    const uint64_t block_bytes = 1 + random() % 300'000;
    cases.push_back({"random_" + std::to_string(i), static_cast<uint32_t>(1 + random() % 9),
                     block_bytes, 1 + random() % 60'000, random() % 16});
  }
  return cases;
}

class ChecksumGpuTest : public testing::TestWithParam<Case> {};

TEST_P(ChecksumGpuTest, IsTheCpusChecksum) {
  const Case& test = GetParam();
  const uint64_t stride = (test.block_bytes + 15) / 16 * 16 + 16;
  std::vector<uint8_t> bytes(stride * test.blocks);
  std::mt19937_64 random(71);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  const DeviceBuffer memory = Upload(bytes);
  std::vector<const uint8_t*> table;
  for (uint32_t i = 0; i < test.blocks; ++i)
    table.push_back(memory.data() + i * stride + test.shift_bytes);
  const DeviceBuffer device_table = Upload(table);
  const DeviceBuffer scratch = Must(DeviceBuffer::Create(
      0, ChecksumScratchBytes(test.blocks, test.block_bytes, test.section_bytes)));
  const DeviceBuffer digests = Must(DeviceBuffer::Create(0, test.blocks * kChecksumDigestBytes));
  Stream stream = Must(Stream::Create(0));
  ChecksumBatch batch;
  batch.block_table = reinterpret_cast<const uint8_t* const*>(device_table.data());
  batch.block_count = test.blocks;
  batch.block_bytes = test.block_bytes;
  batch.section_bytes = test.section_bytes;
  batch.aligned = test.shift_bytes == 0;
  batch.scratch = scratch.data();
  batch.digests = digests.data();
  REPRISE_ASSERT_OK(GpuStatus(ChecksumBlocksOnGpu(batch, stream.handle()), "checksum"));
  REPRISE_ASSERT_OK(stream.Synchronize());
  const std::vector<uint8_t> actual = Download(digests.data(), digests.size_bytes());
  for (uint32_t i = 0; i < test.blocks; ++i) {
    uint8_t expected[kChecksumDigestBytes];
    ChecksumBlock(bytes.data() + i * stride + test.shift_bytes, test.block_bytes,
                  test.section_bytes, expected);
    EXPECT_EQ(std::memcmp(actual.data() + i * kChecksumDigestBytes, expected, sizeof(expected)), 0)
        << "block " << i << " of " << test.block_bytes << " bytes, sections of "
        << test.section_bytes;
  }
}

INSTANTIATE_TEST_SUITE_P(Blocks, ChecksumGpuTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace reprise::kernels
