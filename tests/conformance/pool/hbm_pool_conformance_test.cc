#include "service/pool/hbm_pool.h"

#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/runtime/device.h"
#include "tests/conformance/pool/pool_conformance.h"
#include "tests/support/host_hbm_device.h"

namespace reprise::shard {
namespace {

using reprise::testing::HostHbmControl;
using reprise::testing::HostHbmDevice;

constexpr uint64_t kCapacity = 6 << 20;
constexpr uint64_t kGpuCapacity = 64 << 20;

struct HostTraits {
  static std::unique_ptr<Pool> Make() {
    return HbmPool::Create(std::make_unique<HostHbmDevice>(), kCapacity).value();
  }
  static void Put(uint8_t* to, std::span<const uint8_t> bytes) {
    std::memcpy(to, bytes.data(), bytes.size());
  }
  static std::vector<uint8_t> Get(const uint8_t* from, size_t bytes) {
    return {from, from + bytes};
  }
};

INSTANTIATE_TYPED_TEST_SUITE_P(HbmOverHostMemory, PoolConformance, HostTraits);

TEST(HbmPoolTest, AnExtentThatMayBeMappedGoesToNobodyElse) {
  const auto pool = *HbmPool::Create(std::make_unique<HostHbmDevice>(), kCapacity);
  const KeySpaceId a(1), b(2);
  std::vector<SlotRef> slots;
  while (const auto slot = pool->Allocate(a, pool->extent_bytes())) slots.push_back(*slot);
  const auto place = pool->Export(pool->Address(slots[0]));
  ASSERT_TRUE(place.has_value());
  EXPECT_EQ(place->fd, -1);
  ASSERT_TRUE(pool->Share(place->extent, AttachmentId(9)).ok());
  const std::vector<uint8_t> secret(100, 0x5a);
  HostTraits::Put(pool->Address(slots[0]), secret);
  for (SlotRef slot : slots) {
    if (slot.extent == place->extent) pool->Free(slot);
  }
  EXPECT_FALSE(pool->Allocate(b, pool->extent_bytes()).has_value());
  pool->Unshared(AttachmentId(8));
  EXPECT_FALSE(pool->Allocate(b, pool->extent_bytes()).has_value());
  // Its old owner may have it again, the memory being its own.
  const auto again = pool->Allocate(a, pool->extent_bytes());
  ASSERT_TRUE(again.has_value());
  pool->Free(*again);
  pool->Unshared(AttachmentId(9));
  const auto taken = pool->Allocate(b, pool->extent_bytes());
  ASSERT_TRUE(taken.has_value());
  EXPECT_EQ(taken->extent, place->extent);
  const std::vector<uint8_t> bytes = HostTraits::Get(pool->Address(*taken), pool->extent_bytes());
  EXPECT_TRUE(std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; }));
}

TEST(HbmPoolTest, ADeviceThatRefusesIpcIsToldAndSharesNothing) {
  const auto control = std::make_shared<HostHbmControl>();
  control->shares = false;
  const auto pool = *HbmPool::Create(std::make_unique<HostHbmDevice>(control), kCapacity);
  EXPECT_TRUE(absl::IsUnavailable(pool->Share(0, AttachmentId(9)).status()));
}

TEST(HbmPoolTest, WithoutADeviceThePoolIsRefused) {
  if (kernels::DeviceCount() > 0) GTEST_SKIP() << "SKIPPED: this machine has a GPU";
  EXPECT_TRUE(absl::IsUnavailable(OpenHbmDevice(0).status()));
  EXPECT_TRUE(
      absl::IsInvalidArgument(HbmPool::Create(std::make_unique<HostHbmDevice>(), 0).status()));
}

// ---- The same suite on a GPU

struct GpuTraits {
  static std::unique_ptr<Pool> Make() {
    if (kernels::DeviceCount() == 0) return nullptr;
    return HbmPool::Create(std::move(*OpenHbmDevice(0)), kGpuCapacity).value();
  }
  static HbmDevice& Mover() {
    static const std::unique_ptr<HbmDevice> device = *OpenHbmDevice(0);
    return *device;
  }
  static void Put(uint8_t* to, std::span<const uint8_t> bytes) {
    ASSERT_TRUE(Mover().Copy(to, bytes.data(), bytes.size()).ok());
  }
  static std::vector<uint8_t> Get(const uint8_t* from, size_t bytes) {
    std::vector<uint8_t> out(bytes);
    EXPECT_TRUE(Mover().Copy(out.data(), from, bytes).ok());
    return out;
  }
};

INSTANTIATE_TYPED_TEST_SUITE_P(HbmOverGpu, PoolConformance, GpuTraits);

TEST(HbmPoolTest, MoreBlocksThanOneLaunchTakesAreChecksummedInSeveral) {
  const std::unique_ptr<Pool> pool = GpuTraits::Make();
  if (pool == nullptr) GTEST_SKIP() << "SKIPPED: this machine has no GPU";
  constexpr uint64_t kBytes = 4096;
  constexpr uint64_t kSeeds = 3;
  std::vector<SlotRef> slots;
  std::vector<Checksum128> expected;
  for (size_t i = 0; i < 2 * limits::kHbmChecksumBlocksMax + 7; ++i) {
    std::vector<uint8_t> block(kBytes);
    reprise::testing::FillContent(BlockKey(), i % kSeeds, block);
    slots.push_back(*pool->Allocate(KeySpaceId(1), kBytes));
    GpuTraits::Put(pool->Address(slots.back()), block);
    expected.push_back(reprise::testing::ChecksumOf(block, kBytes / 2));
  }
  const auto checksums =
      pool->Checksums(slots, {.block_bytes = kBytes, .section_bytes = kBytes / 2});
  ASSERT_TRUE(checksums.ok()) << checksums.status();
  EXPECT_EQ(*checksums, expected);
}

TEST(HbmPoolTest, HostMemoryIsPinnedForTheGpuUntilItIsLetGo) {
  if (kernels::DeviceCount() == 0) GTEST_SKIP() << "SKIPPED: this machine has no GPU";
  const std::unique_ptr<HbmDevice> device = *OpenHbmDevice(0);
  std::vector<uint8_t> memory(1 << 20);
  auto pinned = device->Pin(memory.data(), memory.size());
  ASSERT_TRUE(pinned.ok()) << pinned.status();
  EXPECT_FALSE(device->Pin(memory.data(), memory.size()).ok()) << "it is pinned already";
  pinned->reset();
  EXPECT_TRUE(device->Pin(memory.data(), memory.size()).ok());
}

}  // namespace
}  // namespace reprise::shard
