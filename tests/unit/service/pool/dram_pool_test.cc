// What is particular to host memory; what every pool promises is in tests/conformance/pool.

#include "service/pool/dram_pool.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"

namespace reprise::shard {
namespace {

constexpr uint64_t kMiB = 1 << 20;

TEST(DramPool, ExtentsAreAShareOfThePoolWithinBounds) {
  EXPECT_EQ(ExtentBytesFor(1), limits::kExtentBytesMin);
  EXPECT_EQ(ExtentBytesFor(256 * kMiB), 8 * kMiB);
  EXPECT_EQ(ExtentBytesFor(257 * kMiB), 8 * kMiB);
  EXPECT_EQ(ExtentBytesFor(uint64_t{1} << 50), limits::kExtentBytesMax);
}

TEST(DramPool, CapacityIsWholeExtents) {
  EXPECT_EQ(DramPool::Create(5 * kMiB).value()->capacity_bytes(), 4 * kMiB);
  EXPECT_EQ(DramPool::Create(1).value()->capacity_bytes(), 2 * kMiB);
  EXPECT_EQ(DramPool::Create(1).value()->tier(), Tier::kDram);
}

TEST(DramPool, WhatTheMachineDoesNotHaveIsRefused) {
  EXPECT_EQ(RefusalReason(DramPool::Create(0).status()), "DRAM_SIZE");
  EXPECT_EQ(RefusalReason(DramPool::Create(uint64_t{1} << 50).status()), "NO_MEMORY");
}

TEST(DramPool, AMappingOfTheExportedFileIsTheSlotsMemory) {
  const auto pool = DramPool::Create(4 * kMiB).value();
  const SlotRef slot = *pool->Allocate(KeySpaceId(1), 1000);
  const SlotRef next = *pool->Allocate(KeySpaceId(1), 1000);
  const auto place = pool->Export(pool->Address(next));
  ASSERT_TRUE(place.has_value());
  void* const mapped =
      ::mmap(nullptr, place->extent_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, place->fd, 0);
  ASSERT_NE(mapped, MAP_FAILED);
  std::memset(pool->Address(next), 0x5a, 1000);
  EXPECT_EQ(
      std::memcmp(static_cast<uint8_t*>(mapped) + place->offset_bytes, pool->Address(next), 1000),
      0);
  // The next owner's bytes do not reach this mapping, nor its writes them.
  pool->Free(slot);
  pool->Free(next);
  std::vector<SlotRef> theirs;
  while (auto taken = pool->Allocate(KeySpaceId(2), 1000)) theirs.push_back(*taken);
  for (SlotRef taken : theirs) std::memset(pool->Address(taken), 0x77, 1000);
  std::memset(mapped, 0x11, place->extent_bytes);
  for (SlotRef taken : theirs) EXPECT_EQ(*pool->Address(taken), 0x77);
  ::munmap(mapped, place->extent_bytes);
}

TEST(DramPool, AnExportedFileCannotBeShortenedUnderTheShardsFeet) {
  const auto pool = DramPool::Create(2 * kMiB).value();
  const auto place = pool->Export(pool->Address(*pool->Allocate(KeySpaceId(1), 1000)));
  ASSERT_TRUE(place.has_value());
  EXPECT_EQ(::ftruncate(place->fd, 0), -1);
  EXPECT_EQ(errno, EPERM);
}

TEST(DramPool, EveryExtentHasAFileOfItsOwn) {
  const auto pool = DramPool::Create(4 * kMiB).value();
  const auto a = pool->Export(pool->Address(*pool->Allocate(KeySpaceId(1), 1000)));
  const auto b = pool->Export(pool->Address(*pool->Allocate(KeySpaceId(2), 1000)));
  EXPECT_NE(a->fd, b->fd);
  EXPECT_NE(a->extent_id, b->extent_id);
}

// ---- Pinned for a device

struct Pins {
  absl::Mutex mu;
  std::map<uint8_t*, uint64_t> alive ABSL_GUARDED_BY(mu);
  int made ABSL_GUARDED_BY(mu) = 0;

  PinMemory Pinner() {
    return [this](uint8_t* memory, uint64_t bytes) -> absl::StatusOr<PinnedMemory> {
      absl::MutexLock lock(&mu);
      ++made;
      EXPECT_TRUE(alive.emplace(memory, bytes).second) << "pinned twice";
      return PinnedMemory(memory, [this](uint8_t* address) {
        absl::MutexLock unpin(&mu);
        // Pages of a mapping that is gone cannot be unpinned.
        EXPECT_EQ(*address, *address);
        EXPECT_EQ(alive.erase(address), 1u);
      });
    };
  }
};

TEST(DramPool, EveryExtentIsPinnedWhileThePoolLives) {
  Pins pins;
  auto pool = DramPool::Create(6 * kMiB, pins.Pinner()).value();
  {
    absl::MutexLock lock(&pins.mu);
    EXPECT_EQ(pins.alive.size(), pool->extents());
    for (const auto& [address, bytes] : pins.alive) {
      EXPECT_EQ(bytes, pool->extent_bytes());
      EXPECT_TRUE(pool->Holds(address));
    }
  }
  pool.reset();
  absl::MutexLock lock(&pins.mu);
  EXPECT_TRUE(pins.alive.empty());
}

// A device would go on reading and writing the pages of the extent's last owner.
TEST(DramPool, AnExtentThatGetsOtherMemoryIsPinnedAnew) {
  Pins pins;
  const auto pool = DramPool::Create(2 * kMiB, pins.Pinner()).value();
  const SlotRef slot = *pool->Allocate(KeySpaceId(1), 1000);
  ASSERT_TRUE(pool->Export(pool->Address(slot)).has_value());
  pool->Free(slot);
  ASSERT_TRUE(pool->Allocate(KeySpaceId(2), 1000).has_value());
  absl::MutexLock lock(&pins.mu);
  EXPECT_EQ(pins.made, 2);
  EXPECT_EQ(pins.alive.size(), 1u);
}

TEST(DramPool, WhatCannotBePinnedIsUsedAsItIs) {
  const auto pool = DramPool::Create(4 * kMiB, [](uint8_t*, uint64_t) {
                      return absl::ResourceExhaustedError("no more pinned memory");
                    }).value();
  const SlotRef slot = *pool->Allocate(KeySpaceId(1), 1000);
  std::memset(pool->Address(slot), 0x5a, 1000);
  EXPECT_EQ(*pool->Address(slot), 0x5a);
}

}  // namespace
}  // namespace reprise::shard
