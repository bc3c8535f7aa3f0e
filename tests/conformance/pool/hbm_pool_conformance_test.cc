#include "service/pool/hbm_pool.h"

#include <cstring>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/checksum/checksum.h"
#include "kernels/runtime/device.h"
#include "tests/conformance/pool/pool_conformance.h"

namespace reprise::shard {
namespace {

// Host memory in place of a device's.
class HostHbmDevice final : public HbmDevice {
 public:
  explicit HostHbmDevice(bool shares = true) : shares_(shares) {}
  ~HostHbmDevice() override { EXPECT_TRUE(memory_.empty()) << "an extent was not given back"; }
  absl::StatusOr<uint8_t*> Allocate(uint64_t bytes) override {
    auto memory = std::make_unique<uint8_t[]>(bytes + limits::kSlotAlignBytes);
    void* at = memory.get();
    size_t space = bytes + limits::kSlotAlignBytes;
    auto* aligned = static_cast<uint8_t*>(std::align(limits::kSlotAlignBytes, bytes, at, space));
    memory_.emplace(aligned, std::move(memory));
    return aligned;
  }
  void Free(uint8_t* memory) override { EXPECT_EQ(memory_.erase(memory), 1u); }
  absl::Status Zero(uint8_t* memory, uint64_t bytes) override {
    std::memset(memory, 0, bytes);
    return absl::OkStatus();
  }
  absl::Status Copy(uint8_t* to, const uint8_t* from, uint64_t bytes) override {
    std::memcpy(to, from, bytes);
    return absl::OkStatus();
  }
  absl::StatusOr<Checksum128> Checksum(const uint8_t* block, const BlockShape& shape) override {
    Checksum128 checksum;
    kernels::ChecksumBlock(block, shape.block_bytes, shape.section_bytes, checksum.bytes.data());
    return checksum;
  }
  absl::StatusOr<HbmHandle> Export(uint8_t* memory) override {
    if (!shares_) return absl::UnavailableError("IPC is refused");
    HbmHandle handle;
    std::memcpy(handle.ipc.data(), &memory, sizeof(memory));
    return handle;
  }

 private:
  const bool shares_;
  std::map<uint8_t*, std::unique_ptr<uint8_t[]>> memory_;
};

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
  const auto pool = *HbmPool::Create(std::make_unique<HostHbmDevice>(/*shares=*/false), kCapacity);
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

}  // namespace
}  // namespace reprise::shard
