#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "kernels/runtime/device.h"
#include "kernels/runtime/gpu_api.h"
#include "proto/types/refusal.h"
#include "tests/gpu/gpu_fixture.h"

namespace reprise::kernels {
namespace {

TEST(RuntimeGpuTest, DevicesDescribeThemselves) {
  ASSERT_GT(DeviceCount(), 0);
  for (int device = 0; device < DeviceCount(); ++device) {
    const DeviceInfo info = Must(DescribeDevice(device));
    EXPECT_FALSE(info.name.empty());
    EXPECT_FALSE(info.pci_bus_id.empty());
    EXPECT_GT(info.memory_bytes, 0u);
    EXPECT_LE(info.free_bytes, info.memory_bytes);
    EXPECT_GT(info.multiprocessors, 0);
    EXPECT_GE(info.compute_major, 8)
        << "the kernels are compiled for compute capability 8.0 and later";
  }
}

TEST(RuntimeGpuTest, AnAddressTellsTheDeviceItIsOf) {
  DeviceBuffer device = Must(DeviceBuffer::Create(0, 1 << 20));
  PinnedBuffer pinned = Must(PinnedBuffer::Create(1 << 20));
  std::vector<uint8_t> pageable(1 << 20);
  EXPECT_EQ(Must(DeviceOf(device.data() + 4097)), 0);
  EXPECT_EQ(Must(DeviceOf(pinned.data())), kHostMemory);
  EXPECT_EQ(Must(DeviceOf(pageable.data())), kHostMemory);
}

TEST(RuntimeGpuTest, AScopeGivesTheThreadsDeviceBack) {
  REPRISE_ASSERT_OK(UseDevice(0));
  { const DeviceScope scope = Must(DeviceScope::Create(DeviceCount() - 1)); }
  int current = -1;
  EXPECT_EQ(GpuCurrentDevice(&current), kGpuOk);
  EXPECT_EQ(current, 0);
}

TEST(RuntimeGpuTest, AskingForTooMuchIsARefusalAndTheNextCallSucceeds) {
  const absl::Status status = DeviceBuffer::Create(0, uint64_t{1} << 50).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status.ToString();
  EXPECT_EQ(RefusalReason(status), "GPU_OUT_OF_MEMORY");
  EXPECT_EQ(GpuTakeLastError(), kGpuOk) << "the error was cleared";
  EXPECT_TRUE(DeviceBuffer::Create(0, 1 << 20).ok());
}

TEST(RuntimeGpuTest, EventsOrderStreamsAndTellTime) {
  Stream first = Must(Stream::Create(0));
  Stream second = Must(Stream::Create(0));
  Event start = Must(Event::Create());
  Event end = Must(Event::Create());
  constexpr uint64_t kBytes = 64 << 20;
  DeviceBuffer buffer = Must(DeviceBuffer::Create(0, kBytes));
  DeviceBuffer copy = Must(DeviceBuffer::Create(0, kBytes));
  REPRISE_ASSERT_OK(start.Record(first.handle()));
  REPRISE_ASSERT_OK(FillAsync(buffer.data(), 0x5C, kBytes, first.handle()));
  REPRISE_ASSERT_OK(end.Record(first.handle()));
  REPRISE_ASSERT_OK(second.WaitFor(end));
  REPRISE_ASSERT_OK(CopyAsync(copy.data(), buffer.data(), kBytes, second.handle()));
  REPRISE_ASSERT_OK(second.Synchronize());
  EXPECT_TRUE(Must(end.Done()));
  EXPECT_TRUE(Must(first.Idle()));
  EXPECT_GT(Must(end.MillisecondsSince(start)), 0.0f);
  const std::vector<uint8_t> bytes = Download(copy.data(), kBytes);
  EXPECT_TRUE(std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0x5C; }));
}

TEST(RuntimeGpuTest, MemoryOfOthersCanBePinnedAndUnpinned) {
  std::vector<uint8_t> memory(8 << 20, 0x17);
  {
    PinnedRange pinned = Must(PinnedRange::Create(memory.data(), memory.size()));
    DeviceBuffer buffer = Upload(memory.data(), memory.size());
    EXPECT_TRUE(Download(buffer.data(), buffer.size_bytes()) == memory);
  }
  EXPECT_TRUE(PinnedRange::Create(memory.data(), memory.size()).ok()) << "it was unpinned";
}

// As a shard's extent is mapped by those who may read it alone.
TEST(RuntimeGpuTest, MemoryThatMayOnlyBeReadIsCopiedFrom) {
  constexpr size_t kBytes = 8 << 20;
  const int file = ::memfd_create("extent", MFD_CLOEXEC);
  ASSERT_EQ(::ftruncate(file, kBytes), 0);
  const std::vector<uint8_t> content(kBytes, 0x29);
  ASSERT_EQ(::pwrite(file, content.data(), kBytes, 0), static_cast<ssize_t>(kBytes));
  const std::string path = "/proc/self/fd/" + std::to_string(file);
  const int reader = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  void* const memory = ::mmap(nullptr, kBytes, PROT_READ, MAP_SHARED, reader, 0);
  ASSERT_NE(memory, MAP_FAILED);
  {
    auto pinned = PinnedRange::CreateReadOnly(memory, kBytes);
    if (!pinned.ok()) {
      GTEST_SKIP() << "SKIPPED: this GPU does not pin such memory: " << pinned.status();
    }
    DeviceBuffer buffer = Upload(static_cast<const uint8_t*>(memory), kBytes);
    EXPECT_TRUE(Download(buffer.data(), buffer.size_bytes()) == content);
  }
  ::munmap(memory, kBytes);
  ::close(reader);
  ::close(file);
}

}  // namespace
}  // namespace reprise::kernels
