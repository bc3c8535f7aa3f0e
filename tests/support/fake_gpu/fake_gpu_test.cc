// The fake GPU computes what a GPU would, and does not let pass what a GPU would not.
#include "tests/support/fake_gpu/fake_gpu.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "kernels/block_copy/block_copy.h"
#include "kernels/block_copy/block_copy_cuda.h"
#include "kernels/checksum/checksum_cuda.h"
#include "kernels/quantize/quantize.h"
#include "kernels/quantize/quantize_cuda.h"
#include "kernels/runtime/device.h"
#include "kernels/runtime/gpu_api.h"
#include "kernels/runtime/memory.h"
#include "kernels/runtime/stream.h"
#include "proto/types/refusal.h"
#include "tests/unit/kernels/paged_engine.h"

namespace reprise::testing {
namespace {

using namespace kernels;

using Bytes = std::vector<uint8_t>;

Bytes Counting(uint64_t bytes, uint8_t from) {
  Bytes out(bytes);
  for (uint64_t i = 0; i < bytes; ++i) out[i] = static_cast<uint8_t>(from + i * 7);
  return out;
}

class FakeGpuTest : public ::testing::Test {
 protected:
  void TearDown() override {
    EXPECT_EQ(UseOfFakeGpu().alive(), 0u) << "something was not given back";
    ConfigureFakeGpu({});
  }

  static void Put(uint8_t* to, const Bytes& bytes) {
    Stream stream = *Stream::Create(0);
    ASSERT_TRUE(CopyAsync(to, bytes.data(), bytes.size(), stream.handle()).ok());
    ASSERT_TRUE(stream.Synchronize().ok());
  }
  static Bytes Get(const uint8_t* from, uint64_t bytes) {
    Stream stream = *Stream::Create(0);
    Bytes out(bytes);
    EXPECT_TRUE(CopyAsync(out.data(), from, bytes, stream.handle()).ok());
    EXPECT_TRUE(stream.Synchronize().ok());
    return out;
  }
};

using FakeGpuDeathTest = FakeGpuTest;

// ---- Devices and memory

TEST_F(FakeGpuTest, ShowsTheDevicesThatItIsToldTo) {
  EXPECT_EQ(DeviceCount(), 1);
  ConfigureFakeGpu({.devices = 2, .first = 3, .memory_bytes = 1 << 20});
  EXPECT_EQ(DeviceCount(), 2);
  EXPECT_EQ(DescribeDevice(1)->memory_bytes, 1u << 20);
  EXPECT_NE(DescribeDevice(0)->uuid, DescribeDevice(1)->uuid);
  const auto fifth = DescribeDevice(1)->uuid;
  ConfigureFakeGpu({.devices = 1, .first = 4});
  EXPECT_EQ(DescribeDevice(0)->uuid, fifth);
  ConfigureFakeGpu({.devices = 0});
  EXPECT_EQ(DeviceCount(), 0);
  EXPECT_NE(WhyNoDevice(), "");
  EXPECT_EQ(RefusalReason(DeviceBuffer::Create(0, 64).status()), "GPU_ABSENT");
}

TEST_F(FakeGpuTest, MemoryIsLimitedPoisonedAndGivenBack) {
  ConfigureFakeGpu({.memory_bytes = 1 << 20});
  {
    const DeviceBuffer half = *DeviceBuffer::Create(0, 512 << 10);
    EXPECT_EQ(Get(half.data(), 4096), Bytes(4096, kFakeGpuPoison));
    EXPECT_EQ(RefusalReason(DeviceBuffer::Create(0, (512 << 10) + 1).status()),
              "GPU_OUT_OF_MEMORY");
    EXPECT_EQ(DescribeDevice(0)->free_bytes, 512u << 10);
    EXPECT_TRUE(IsFakeDeviceMemory(half.data() + 1));
    EXPECT_FALSE(IsFakeDeviceMemory(&half));
  }
  EXPECT_TRUE(DeviceBuffer::Create(0, 1 << 20).ok());
}

TEST_F(FakeGpuTest, AnAddressTellsItsDevice) {
  ConfigureFakeGpu({.devices = 2});
  const DeviceBuffer first = *DeviceBuffer::Create(0, 4096);
  const DeviceBuffer second = *DeviceBuffer::Create(1, 4096);
  const PinnedBuffer pinned = *PinnedBuffer::Create(4096);
  EXPECT_EQ(*DeviceOf(first.data()), 0);
  EXPECT_EQ(*DeviceOf(second.data() + 4095), 1);
  EXPECT_EQ(*DeviceOf(pinned.data()), kHostMemory);
  EXPECT_EQ(*DeviceOf(&first), kHostMemory);
}

TEST_F(FakeGpuDeathTest, TheCpuCannotTouchDeviceMemory) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const DeviceBuffer buffer = *DeviceBuffer::Create(0, 4096);
  EXPECT_DEATH(*static_cast<volatile uint8_t*>(buffer.data()) = 1, "");
}

TEST_F(FakeGpuTest, TouchCanBeAllowed) {
  ConfigureFakeGpu({.touch_caught = false});
  const DeviceBuffer buffer = *DeviceBuffer::Create(0, 4096);
  EXPECT_EQ(buffer.data()[4095], kFakeGpuPoison);
}

TEST_F(FakeGpuDeathTest, MisuseEndsTheProcessAndSaysWhy) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const DeviceBuffer buffer = *DeviceBuffer::Create(0, 4096);
  Stream stream = *Stream::Create(0);
  Bytes host(8192);
  EXPECT_DEATH((GpuFree(buffer.data()), GpuFree(buffer.data())), "freed twice");
  EXPECT_DEATH(GpuFree(host.data()), "cudaFree of .* never had");
  EXPECT_DEATH(GpuHostFree(buffer.data()), "pinned memory");
  EXPECT_DEATH(CopyAsync(buffer.data() + 1, host.data(), 4096, stream.handle()).IgnoreError(),
               "leave a range of device memory of 4096 bytes");
  EXPECT_DEATH(FillAsync(buffer.data(), 0, 4097, stream.handle()).IgnoreError(), "leave a range");
  EXPECT_DEATH((GpuStreamDestroy(stream.handle()), GpuStreamSynchronize(stream.handle())),
               "a stream that was destroyed");
  EXPECT_DEATH(ConfigureFakeGpu({}), "1 buffers");
  EXPECT_DEATH(ParseFakeGpuOptions("devices=1,colour=red"), "there is no colour");
  EXPECT_DEATH(ParseFakeGpuOptions("memory=64MB"), "is no number");
  EXPECT_DEATH(ParseFakeGpuOptions("ipc=maybe"), "neither allow nor refuse");
}

TEST_F(FakeGpuTest, OptionsAreReadAsTheyAreWritten) {
  const FakeGpuOptions options = ParseFakeGpuOptions(
      "devices=2,first=1,memory=64MiB,ipc=refuse,peers=none,schedule=deferred,seed=9,"
      "touch=allowed,lost_after=5");
  EXPECT_EQ(options.devices, 2);
  EXPECT_EQ(options.first, 1);
  EXPECT_EQ(options.memory_bytes, 64u << 20);
  EXPECT_FALSE(options.ipc || options.peers || options.touch_caught);
  EXPECT_TRUE(options.deferred);
  EXPECT_EQ(options.seed, 9u);
  EXPECT_EQ(options.lost_after, 5u);
}

TEST_F(FakeGpuTest, MemoryIsPinnedOnce) {
  Bytes host(8192);
  const PinnedRange pinned = *PinnedRange::Create(host.data(), host.size());
  EXPECT_FALSE(PinnedRange::Create(host.data() + 4096, 4096).ok());
}

TEST_F(FakeGpuTest, MemoryThatMayOnlyBeReadIsPinnedForReadingAlone) {
  void* const memory = ::mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  EXPECT_FALSE(PinnedRange::Create(memory, 4096).ok());
  EXPECT_TRUE(PinnedRange::CreateReadOnly(memory, 4096).ok());
  ::munmap(memory, 4096);
}

TEST_F(FakeGpuTest, ALostGpuFailsEveryCallAfterwards) {
  ConfigureFakeGpu({.lost_after = 2});
  {
    const DeviceBuffer buffer = *DeviceBuffer::Create(0, 4096);
    Stream stream = *Stream::Create(0);
    EXPECT_TRUE(FillAsync(buffer.data(), 1, 4096, stream.handle()).ok());
    EXPECT_EQ(RefusalReason(FillAsync(buffer.data(), 1, 4096, stream.handle())), "GPU_LOST");
    EXPECT_EQ(RefusalReason(stream.Synchronize()), "GPU_LOST");
    EXPECT_EQ(RefusalReason(DeviceBuffer::Create(0, 64).status()), "GPU_LOST");
  }
}

// ---- Streams and events

TEST_F(FakeGpuTest, WorkIsDoneWhenSomebodyWaitedAndNoSooner) {
  ConfigureFakeGpu({.deferred = true});
  const DeviceBuffer device = *DeviceBuffer::Create(0, 4096);
  const PinnedBuffer host = *PinnedBuffer::Create(4096);
  Stream stream = *Stream::Create(0);
  const Bytes bytes = Counting(4096, 3);
  {
    Bytes pageable = bytes;
    ASSERT_TRUE(CopyAsync(device.data(), pageable.data(), 4096, stream.handle()).ok());
    // Was read already.
    std::fill(pageable.begin(), pageable.end(), uint8_t{0});
  }
  ASSERT_TRUE(CopyAsync(host.data(), device.data(), 4096, stream.handle()).ok());
  EXPECT_NE(Bytes(host.data(), host.data() + 4096), bytes) << "nobody waited for it";
  EXPECT_EQ(UseOfFakeGpu().pending, 2u);
  ASSERT_TRUE(stream.Synchronize().ok());
  EXPECT_EQ(Bytes(host.data(), host.data() + 4096), bytes);
}

TEST_F(FakeGpuTest, AskingOftenEnoughSeesAStreamIdle) {
  ConfigureFakeGpu({.deferred = true, .seed = 5});
  const DeviceBuffer device = *DeviceBuffer::Create(0, 4096);
  Stream stream = *Stream::Create(0);
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(FillAsync(device.data(), 1, 64, stream.handle()).ok());
  int asked = 1;
  while (!*stream.Idle()) ++asked;
  EXPECT_GT(asked, 1);
}

TEST_F(FakeGpuTest, EventsOrderStreams) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    ConfigureFakeGpu({.deferred = true, .seed = seed});
    const DeviceBuffer device = *DeviceBuffer::Create(0, 64);
    Stream first = *Stream::Create(0);
    Stream second = *Stream::Create(0);
    Event filled = *Event::Create();
    ASSERT_TRUE(FillAsync(device.data(), 1, 64, first.handle()).ok());
    ASSERT_TRUE(filled.Record(first.handle()).ok());
    ASSERT_TRUE(second.WaitFor(filled).ok());
    ASSERT_TRUE(FillAsync(device.data(), 2, 64, second.handle()).ok());
    ASSERT_TRUE(second.Synchronize().ok());
    EXPECT_TRUE(*filled.Done());
    EXPECT_EQ(Get(device.data(), 64), Bytes(64, 2)) << "seed " << seed;
  }
}

TEST_F(FakeGpuTest, WithoutAnEventTheOrderOfStreamsIsTheSeeds) {
  bool first_won = false, second_won = false;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    ConfigureFakeGpu({.deferred = true, .seed = seed});
    const DeviceBuffer device = *DeviceBuffer::Create(0, 64);
    Stream first = *Stream::Create(0);
    Stream second = *Stream::Create(0);
    ASSERT_TRUE(FillAsync(device.data(), 1, 64, first.handle()).ok());
    ASSERT_TRUE(FillAsync(device.data(), 2, 64, second.handle()).ok());
    ASSERT_TRUE(first.Synchronize().ok());
    ASSERT_TRUE(second.Synchronize().ok());
    (Get(device.data(), 1)[0] == 1 ? first_won : second_won) = true;
  }
  EXPECT_TRUE(first_won && second_won);
}

TEST_F(FakeGpuTest, ManyThreadsHaveStreamsOfTheirOwn) {
  ConfigureFakeGpu({.deferred = true});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      const DeviceBuffer device = *DeviceBuffer::Create(0, 4096);
      for (int i = 0; i < 20; ++i) {
        const Bytes bytes = Counting(4096, static_cast<uint8_t>(t * 20 + i));
        Put(device.data(), bytes);
        EXPECT_EQ(Get(device.data(), 4096), bytes);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// ---- IPC

// Runs `child` in another process and returns what it exits with.
template <typename Child>
int InAnotherProcess(const Child& child) {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(child());
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

TEST_F(FakeGpuTest, AnotherProcessMapsAndWritesTheSameMemory) {
  const DeviceBuffer device = *DeviceBuffer::Create(0, 8192);
  Put(device.data(), Counting(8192, 1));
  const IpcHandle handle = *device.Export();
  const int exit = InAnotherProcess([&] {
    const auto opened = OpenedDeviceMemory::Create(0, handle, 8192);
    if (!opened.ok() || opened->data() == device.data()) return 1;
    const auto twice = OpenedDeviceMemory::Create(0, handle, 8192);
    if (!twice.ok() || twice->data() != opened->data()) return 2;
    if (Get(opened->data(), 8192) != Counting(8192, 1)) return 3;
    Put(opened->data() + 4096, Counting(4096, 77));
    return 0;
  });
  EXPECT_EQ(exit, 0);
  EXPECT_EQ(Get(device.data() + 4096, 4096), Counting(4096, 77));
  EXPECT_EQ(Get(device.data(), 4096), Counting(4096, 1));
}

TEST_F(FakeGpuTest, MemoryIsNotOpenedWhereItCannotBe) {
  IpcHandle handle{};
  {
    const DeviceBuffer device = *DeviceBuffer::Create(0, 8192);
    handle = *device.Export();
    EXPECT_FALSE(OpenedDeviceMemory::Create(0, handle, 8192).ok()) << "its own";
  }
  EXPECT_EQ(
      InAnotherProcess([&] { return OpenedDeviceMemory::Create(0, handle, 8192).ok() ? 1 : 0; }), 0)
      << "it was freed";
  ConfigureFakeGpu({.ipc = false});
  const DeviceBuffer device = *DeviceBuffer::Create(0, 8192);
  EXPECT_FALSE(device.Export().ok());
}

TEST_F(FakeGpuTest, AnotherGpuOpensItWithPeerAccessOnly) {
  ConfigureFakeGpu({.devices = 2, .peers = false});
  const DeviceBuffer device = *DeviceBuffer::Create(0, 8192);
  const IpcHandle handle = *device.Export();
  EXPECT_EQ(InAnotherProcess([&] {
              if (!OpenedDeviceMemory::Create(0, handle, 8192).ok()) return 1;
              return OpenedDeviceMemory::Create(1, handle, 8192).ok() ? 2 : 0;
            }),
            0);
  EXPECT_FALSE(*PeerAccessPossible(0, 1));
}

// ---- Kernels

constexpr uint32_t kBlocks = 3;

// An engine in device memory, with the tables of a run over all of its blocks.
struct DeviceEngine {
  explicit DeviceEngine(const EngineShape& shape)
      : engine(shape),
        first(Lowest(engine.plan())),
        memory(*DeviceBuffer::Create(0, Extent(engine.plan(), shape.pages, first))),
        plan(engine.plan()),
        pages(*PinnedBuffer::Create(kBlocks * plan.PagesPerBlock() * sizeof(int64_t))),
        table(*PinnedBuffer::Create(kBlocks * sizeof(uint8_t*))) {
    for (PagedPlane& plane : plan.planes) plane.base = memory.data() + (plane.base - first);
    Copy(memory.data(), first, memory.size_bytes());
    auto* const numbers = reinterpret_cast<int64_t*>(pages.data());
    for (uint32_t i = 0; i < kBlocks * plan.PagesPerBlock(); ++i) numbers[i] = (i * 5 + 2) % 17;
    numbers[1] = kNoPage;
  }

  static uint8_t* Lowest(const PagedPlan& plan) {
    uint8_t* lowest = plan.planes[0].base;
    for (const PagedPlane& plane : plan.planes) lowest = std::min(lowest, plane.base);
    return lowest;
  }
  static uint64_t Extent(const PagedPlan& plan, uint32_t pages, const uint8_t* first) {
    uint64_t extent = 0;
    for (const PagedPlane& plane : plan.planes) {
      extent =
          std::max<uint64_t>(extent, static_cast<uint64_t>(plane.base - first) +
                                         pages * static_cast<uint64_t>(plane.page_stride_bytes));
    }
    return extent;
  }
  static void Copy(uint8_t* to, const uint8_t* from, uint64_t bytes) {
    Stream stream = *Stream::Create(0);
    ASSERT_TRUE(CopyAsync(to, from, bytes, stream.handle()).ok());
    ASSERT_TRUE(stream.Synchronize().ok());
  }
  BlockRun Run(uint8_t* blocks, uint64_t block_bytes) const {
    auto** const addresses = reinterpret_cast<uint8_t**>(table.data());
    for (uint32_t i = 0; i < kBlocks; ++i) addresses[i] = blocks + i * block_bytes;
    return {.page_table = reinterpret_cast<const int64_t*>(pages.data()),
            .block_table = addresses,
            .block_count = kBlocks,
            .part = {.tokens = plan.block_tokens - 1}};
  }
  std::span<const int64_t> PagesOf(uint32_t block) const {
    return {reinterpret_cast<const int64_t*>(pages.data()) + block * plan.PagesPerBlock(),
            plan.PagesPerBlock()};
  }
  // What the CPU packs.
  Bytes Gathered() const {
    Bytes out(kBlocks * plan.block_bytes);
    for (uint32_t i = 0; i < kBlocks; ++i) {
      BlockPart part;
      if (i + 1 == kBlocks) part.tokens = plan.block_tokens - 1;
      GatherBlockPart(engine.plan(), part, PagesOf(i), out.data() + i * plan.block_bytes);
    }
    return out;
  }

  PagedEngine engine;
  uint8_t* first;
  DeviceBuffer memory;
  PagedPlan plan;
  PinnedBuffer pages;
  PinnedBuffer table;
};

const EngineShape kShapes[] = {
    {.name = "nhd", .page_tokens = 8, .block_tokens = 16},
    {.name = "narrow", .order = PageOrder::kHnd, .row_data_bytes = 36, .page_tokens = 8}};

TEST_F(FakeGpuTest, GatherAndScatterAreTheCpus) {
  for (const bool deferred : {false, true}) {
    for (const EngineShape& shape : kShapes) {
      ConfigureFakeGpu({.deferred = deferred});
      const DeviceEngine engine(shape);
      const GpuPlan plan = *GpuPlan::Create(0, engine.plan);
      const DeviceBuffer blocks = *DeviceBuffer::Create(0, kBlocks * plan.block_bytes());
      Stream stream = *Stream::Create(0);
      const BlockRun run = engine.Run(blocks.data(), plan.block_bytes());
      ASSERT_TRUE(GatherRun(plan, run, stream.handle()).ok());
      ASSERT_TRUE(stream.Synchronize().ok());
      EXPECT_EQ(Get(blocks.data(), blocks.size_bytes()), engine.Gathered()) << shape.name;

      // Back, over memory that was overwritten: all that was gathered is there again.
      ASSERT_TRUE(
          FillAsync(engine.memory.data(), 0, engine.memory.size_bytes(), stream.handle()).ok());
      ASSERT_TRUE(ScatterRun(plan, run, stream.handle()).ok());
      ASSERT_TRUE(FillAsync(blocks.data(), 9, blocks.size_bytes(), stream.handle()).ok());
      ASSERT_TRUE(GatherRun(plan, run, stream.handle()).ok());
      ASSERT_TRUE(stream.Synchronize().ok());
      EXPECT_EQ(Get(blocks.data(), blocks.size_bytes()), engine.Gathered()) << shape.name;
      EXPECT_EQ(UseOfFakeGpu().launches, 3u);
    }
  }
}

TEST_F(FakeGpuTest, CodecsAreTheCpus) {
  for (const char* codec : {"fp8_e4m3", "int8", "int4"}) {
    ConfigureFakeGpu({});
    const DeviceEngine engine({.name = "nhd", .page_tokens = 8, .block_tokens = 16});
    QuantShape shape{.element = ElementType::kBf16,
                     .layers = 2,
                     .planes_per_layer = 2,
                     .heads = 2,
                     .tokens = 16,
                     .channels = 32};
    shape = *WithCodec(shape, codec);
    const GpuPlan plan = *GpuPlan::Create(0, engine.plan);
    const uint64_t encoded = EncodedBlockBytes(shape);
    const DeviceBuffer blocks = *DeviceBuffer::Create(0, kBlocks * encoded);
    Stream stream = *Stream::Create(0);
    const BlockRun run = engine.Run(blocks.data(), encoded);
    ASSERT_TRUE(EncodeRun(plan, shape, run, stream.handle()).ok());
    ASSERT_TRUE(stream.Synchronize().ok());
    const Bytes gathered = engine.Gathered();
    std::vector<uint64_t> expected(kBlocks * encoded / 8);
    auto* const bytes = reinterpret_cast<uint8_t*>(expected.data());
    for (uint32_t i = 0; i < kBlocks; ++i) {
      EncodeBlock(shape, gathered.data() + i * plan.block_bytes(), bytes + i * encoded);
    }
    EXPECT_EQ(Get(blocks.data(), kBlocks * encoded), Bytes(bytes, bytes + kBlocks * encoded))
        << codec;
    ASSERT_TRUE(DecodeRun(plan, shape, run, stream.handle()).ok());
    ASSERT_TRUE(stream.Synchronize().ok());
  }
}

TEST_F(FakeGpuTest, ChecksumsAreTheCpus) {
  constexpr uint64_t kBytes = 100 << 10;
  const DeviceBuffer blocks = *DeviceBuffer::Create(0, 2 * kBytes);
  Put(blocks.data(), Counting(2 * kBytes, 11));
  const PinnedBuffer table = *PinnedBuffer::Create(2 * sizeof(uint8_t*));
  const uint8_t* const addresses[] = {blocks.data(), blocks.data() + kBytes};
  std::memcpy(table.data(), addresses, sizeof(addresses));
  const DeviceBuffer scratch = *DeviceBuffer::Create(0, ChecksumScratchBytes(2, kBytes, 50 << 10));
  const PinnedBuffer digests = *PinnedBuffer::Create(2 * kChecksumDigestBytes);
  Stream stream = *Stream::Create(0);
  ASSERT_EQ(ChecksumBlocksOnGpu({.block_table = reinterpret_cast<const uint8_t**>(table.data()),
                                 .block_count = 2,
                                 .block_bytes = kBytes,
                                 .section_bytes = 50 << 10,
                                 .aligned = true,
                                 .scratch = scratch.data(),
                                 .digests = digests.data()},
                                stream.handle()),
            kGpuOk);
  ASSERT_TRUE(stream.Synchronize().ok());
  const Bytes bytes = Counting(2 * kBytes, 11);
  for (uint32_t i = 0; i < 2; ++i) {
    uint8_t expected[kChecksumDigestBytes];
    ChecksumBlock(bytes.data() + i * kBytes, kBytes, 50 << 10, expected);
    EXPECT_EQ(std::memcmp(expected, digests.data() + i * kChecksumDigestBytes, sizeof(expected)),
              0);
  }
}

TEST_F(FakeGpuDeathTest, KernelsReachDeviceAndPinnedMemoryOnly) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const DeviceEngine engine(kShapes[0]);
  const GpuPlan plan = *GpuPlan::Create(0, engine.plan);
  const DeviceBuffer blocks = *DeviceBuffer::Create(0, kBlocks * plan.block_bytes());
  Stream stream = *Stream::Create(0);
  const auto gather = [&](const BlockRun& run) {
    GatherRun(plan, run, stream.handle()).IgnoreError();
  };
  Bytes pageable(kBlocks * plan.block_bytes());
  EXPECT_DEATH(gather(engine.Run(pageable.data(), plan.block_bytes())),
               "block: a kernel reaches for .* nor pinned");
  EXPECT_DEATH(gather(engine.Run(blocks.data() + 16, plan.block_bytes())),
               "block: .* leave a range of device memory");
  EXPECT_DEATH(gather(engine.Run(blocks.data() + 4, plan.block_bytes() - 16)), "not aligned");
  BlockRun run = engine.Run(blocks.data(), plan.block_bytes());
  const std::vector<int64_t> pages(kBlocks * engine.plan.PagesPerBlock(), 0);
  run.page_table = pages.data();
  EXPECT_DEATH(gather(run), "page table: a kernel reaches for");
  auto* const numbers = reinterpret_cast<int64_t*>(engine.pages.data());
  run = engine.Run(blocks.data(), plan.block_bytes());
  numbers[0] = 1 << 20;
  EXPECT_DEATH(gather(run), "engine page");
}

}  // namespace
}  // namespace reprise::testing
