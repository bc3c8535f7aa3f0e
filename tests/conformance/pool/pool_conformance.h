// What every pool promises, whatever its memory. An implementation says how to make one and how to
// reach its memory, and instantiates the suite:
//   struct MyTraits { static std::unique_ptr<Pool> Make();  // at least two extents; nullptr: skip
//                     static void Put(uint8_t* to, std::span<const uint8_t> bytes);
//                     static std::vector<uint8_t> Get(const uint8_t* from, size_t bytes); };
//   INSTANTIATE_TYPED_TEST_SUITE_P(My, PoolConformance, MyTraits);
// Put and Get go between host memory and the pool.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <set>
#include <span>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "proto/types/limits.h"
#include "service/pool/pool.h"
#include "tests/support/block_content.h"

namespace reprise::shard {

template <typename Traits>
class PoolConformance : public ::testing::Test {
 protected:
  static constexpr uint64_t kBlock = 100'000;  // no multiple of anything
  const KeySpaceId a_{1}, b_{2};
  std::unique_ptr<Pool> pool_ = Traits::Make();

  void SetUp() override {
    if (pool_ == nullptr) GTEST_SKIP() << "SKIPPED: this machine has no device for this pool";
  }

  std::vector<SlotRef> TakeAll(KeySpaceId space, uint64_t block_bytes) {
    std::vector<SlotRef> slots;
    while (std::optional<SlotRef> slot = pool_->Allocate(space, block_bytes))
      slots.push_back(*slot);
    return slots;
  }
  void Fill(SlotRef slot, uint64_t seed, uint64_t bytes = kBlock) {
    std::vector<uint8_t> content(bytes);
    reprise::testing::FillContent(BlockKey(), seed, content);
    Traits::Put(pool_->Address(slot), content);
  }
  bool Holds(SlotRef slot, uint64_t seed, uint64_t bytes = kBlock) {
    return reprise::testing::HasContent(BlockKey(), seed, Traits::Get(pool_->Address(slot), bytes));
  }
  void ExpectSound(const std::vector<SlotRef>& held) {
    const absl::Status sound = pool_->CheckInvariants({held.begin(), held.end()});
    EXPECT_TRUE(sound.ok()) << sound;
  }
};
TYPED_TEST_SUITE_P(PoolConformance);

TYPED_TEST_P(PoolConformance, StartsEmptyWithItsCapacity) {
  EXPECT_EQ(this->pool_->capacity_bytes(), this->pool_->extents() * this->pool_->extent_bytes());
  EXPECT_GE(this->pool_->extents(), 2u);
  EXPECT_EQ(this->pool_->unowned_extents(), this->pool_->extents());
  EXPECT_EQ(this->pool_->used_bytes(), 0u);
  EXPECT_EQ(this->pool_->pressure(), 0.0);
  this->ExpectSound({});
}

TYPED_TEST_P(PoolConformance, WhatNobodyHadYetIsZeroes) {
  const uint64_t whole = this->pool_->extent_bytes();
  const std::vector<SlotRef> slots = this->TakeAll(this->a_, whole);
  EXPECT_EQ(slots.size(), this->pool_->extents());
  for (SlotRef slot : slots) {
    const std::vector<uint8_t> bytes = TypeParam::Get(this->pool_->Address(slot), whole);
    EXPECT_TRUE(std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; }));
  }
}

TYPED_TEST_P(PoolConformance, SlotsAreAlignedApartAndAllOfTheMemory) {
  const std::vector<SlotRef> slots = this->TakeAll(this->a_, this->kBlock);
  const uint64_t slot_bytes = SlotAllocator::SlotBytes(this->kBlock);
  EXPECT_EQ(slots.size(), this->pool_->extents() * (this->pool_->extent_bytes() / slot_bytes));
  std::vector<uintptr_t> addresses;
  for (SlotRef slot : slots) {
    addresses.push_back(reinterpret_cast<uintptr_t>(this->pool_->Address(slot)));
    EXPECT_EQ(addresses.back() % limits::kSlotAlignBytes, 0u);
  }
  std::sort(addresses.begin(), addresses.end());
  for (size_t i = 1; i < addresses.size(); ++i)
    EXPECT_GE(addresses[i] - addresses[i - 1], slot_bytes);
  EXPECT_EQ(this->pool_->used_bytes(), slots.size() * slot_bytes);
  EXPECT_NEAR(this->pool_->pressure(), 1.0, 1e-4);
  this->ExpectSound(slots);
}

TYPED_TEST_P(PoolConformance, EveryByteOfEverySlotIsItsOwn) {
  const std::vector<SlotRef> slots = this->TakeAll(this->a_, this->kBlock);
  for (size_t i = 0; i < slots.size(); ++i) this->Fill(slots[i], i);
  for (size_t i = 0; i < slots.size(); ++i) EXPECT_TRUE(this->Holds(slots[i], i)) << i;
}

TYPED_TEST_P(PoolConformance, AFreedSlotIsGivenOutAgain) {
  std::vector<SlotRef> slots = this->TakeAll(this->a_, this->kBlock);
  const SlotRef freed = slots[slots.size() / 2];
  this->pool_->Free(freed);
  EXPECT_EQ(this->pool_->Allocate(this->a_, this->kBlock), freed);
  EXPECT_FALSE(this->pool_->Allocate(this->a_, this->kBlock).has_value());
  this->ExpectSound(slots);
}

TYPED_TEST_P(PoolConformance, AGivenSlotIsTakenAsIfItHadBeenAllocated) {
  const uint32_t extent = this->pool_->extents() - 1;
  std::vector<SlotRef> held = {{extent, 3}, {extent, 0}};
  for (SlotRef slot : held) EXPECT_TRUE(this->pool_->Take(this->a_, this->kBlock, slot));
  EXPECT_FALSE(this->pool_->Take(this->a_, this->kBlock, held[0])) << "it is in use";
  EXPECT_FALSE(this->pool_->Take(this->b_, this->kBlock, {extent, 1})) << "another one's extent";
  EXPECT_FALSE(this->pool_->Take(this->b_, 2 * this->pool_->extent_bytes(), {0, 0}));
  this->ExpectSound(held);
  for (size_t i = 0; i < held.size(); ++i) this->Fill(held[i], i);
  std::vector<SlotRef> rest = this->TakeAll(this->a_, this->kBlock);
  for (SlotRef slot : rest) this->Fill(slot, 7);
  for (size_t i = 0; i < held.size(); ++i) EXPECT_TRUE(this->Holds(held[i], i)) << i;
  EXPECT_NEAR(this->pool_->pressure(), 1.0, 1e-4);
  rest.insert(rest.end(), held.begin(), held.end());
  this->ExpectSound(rest);
  for (SlotRef slot : rest) this->pool_->Free(slot);
  EXPECT_EQ(this->pool_->unowned_extents(), this->pool_->extents());
}

TYPED_TEST_P(PoolConformance, SyncLosesNothing) {
  const SlotRef slot = *this->pool_->Allocate(this->a_, this->kBlock);
  this->Fill(slot, 5);
  EXPECT_TRUE(this->pool_->Sync().ok());
  EXPECT_TRUE(this->Holds(slot, 5));
}

TYPED_TEST_P(PoolConformance, TwoKeySpacesNeverShareAnExtent) {
  std::set<uint32_t> of_a, of_b;
  std::vector<SlotRef> held;
  for (int i = 0; i < 3; ++i) {
    held.push_back(*this->pool_->Allocate(this->a_, this->kBlock));
    of_a.insert(held.back().extent);
    held.push_back(*this->pool_->Allocate(this->b_, 2 * this->kBlock));
    of_b.insert(held.back().extent);
  }
  EXPECT_EQ(of_a.size(), 1u);
  EXPECT_EQ(of_b.size(), 1u);
  EXPECT_NE(*of_a.begin(), *of_b.begin());
  EXPECT_EQ(this->pool_->Use(this->a_).used_slots, 3u);
  EXPECT_EQ(this->pool_->Use(this->b_).extents, 1u);
  this->ExpectSound(held);
}

TYPED_TEST_P(PoolConformance, AnEmptiedExtentGoesToWhoeverNeedsItWiped) {
  const std::vector<SlotRef> slots = this->TakeAll(this->a_, this->kBlock);
  EXPECT_FALSE(this->pool_->Allocate(this->b_, this->kBlock).has_value());
  for (size_t i = 0; i < slots.size(); ++i) this->Fill(slots[i], i);
  std::vector<SlotRef> rest;
  for (SlotRef slot : slots) {
    if (slot.extent == 0) {
      this->pool_->Free(slot);
    } else {
      rest.push_back(slot);
    }
  }
  EXPECT_EQ(this->pool_->unowned_extents(), 1u);
  const uint64_t whole = this->pool_->extent_bytes();
  const std::optional<SlotRef> taken = this->pool_->Allocate(this->b_, whole);
  ASSERT_TRUE(taken.has_value());
  EXPECT_EQ(taken->extent, 0u);
  const std::vector<uint8_t> bytes = TypeParam::Get(this->pool_->Address(*taken), whole);
  EXPECT_TRUE(std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; }));
  rest.push_back(*taken);
  this->ExpectSound(rest);
}

TYPED_TEST_P(PoolConformance, ADrainingExtentGivesOutNoSlots) {
  std::vector<SlotRef> held = {*this->pool_->Allocate(this->a_, this->kBlock)};
  this->pool_->SetDraining(held[0].extent, true);
  held.push_back(*this->pool_->Allocate(this->a_, this->kBlock));
  EXPECT_NE(held[1].extent, held[0].extent);
  this->ExpectSound(held);
  this->pool_->SetDraining(held[0].extent, false);
  std::set<uint32_t> extents;
  for (SlotRef slot : this->TakeAll(this->a_, this->kBlock)) extents.insert(slot.extent);
  EXPECT_TRUE(extents.contains(held[0].extent));
}

TYPED_TEST_P(PoolConformance, CopyTakesABlockToAnotherSlot) {
  const SlotRef from = *this->pool_->Allocate(this->a_, this->kBlock);
  const SlotRef to = *this->pool_->Allocate(this->a_, this->kBlock);
  this->Fill(from, 5);
  this->Fill(to, 6);
  ASSERT_TRUE(this->pool_->Copy(from, to, this->kBlock).ok());
  EXPECT_TRUE(this->Holds(from, 5));
  EXPECT_TRUE(this->Holds(to, 5));
}

TYPED_TEST_P(PoolConformance, BytesGoToHostMemoryAndBack) {
  const SlotRef slot = *this->pool_->Allocate(this->a_, this->kBlock);
  uint8_t* const at = this->pool_->Address(slot);
  std::vector<uint8_t> block(this->kBlock), back(this->kBlock - 100);
  reprise::testing::FillContent(BlockKey(), 5, block);
  ASSERT_TRUE(this->pool_->CopyFromHost(block, at).ok());
  EXPECT_TRUE(this->Holds(slot, 5));
  ASSERT_TRUE(this->pool_->CopyToHost(at + 100, back).ok());
  EXPECT_TRUE(std::equal(back.begin(), back.end(), block.begin() + 100));
  EXPECT_TRUE(this->pool_->Holds(at + this->kBlock - 1));
  EXPECT_FALSE(this->pool_->Holds(block.data()));
}

TYPED_TEST_P(PoolConformance, TheChecksumIsTheDefinedOne) {
  std::vector<SlotRef> slots;
  for (uint64_t seed = 0; seed < 5; ++seed) {
    slots.push_back(*this->pool_->Allocate(this->a_, this->kBlock));
    this->Fill(slots.back(), seed);
  }
  std::reverse(slots.begin(), slots.end());
  for (uint64_t section : {this->kBlock, this->kBlock / 4}) {
    const auto checksums =
        this->pool_->Checksums(slots, {.block_bytes = this->kBlock, .section_bytes = section});
    ASSERT_TRUE(checksums.ok()) << checksums.status();
    ASSERT_EQ(checksums->size(), slots.size());
    for (size_t i = 0; i < slots.size(); ++i) {
      const auto bytes = TypeParam::Get(this->pool_->Address(slots[i]), this->kBlock);
      EXPECT_EQ((*checksums)[i], reprise::testing::ChecksumOf(bytes, section)) << i;
    }
  }
  EXPECT_TRUE(
      this->pool_->Checksums({}, {.block_bytes = this->kBlock, .section_bytes = 1000})->empty());
}

TYPED_TEST_P(PoolConformance, AnExportedExtentGetsOtherMemoryWithItsNextOwner) {
  const SlotRef first = *this->pool_->Allocate(this->a_, this->kBlock);
  const SlotRef second = *this->pool_->Allocate(this->a_, this->kBlock);
  const auto place = this->pool_->Export(this->pool_->Address(second));
  ASSERT_EQ(place.has_value(), this->pool_->shareable());
  if (!place.has_value()) return;
  EXPECT_EQ(place->extent, second.extent);
  EXPECT_EQ(place->extent_bytes, this->pool_->extent_bytes());
  EXPECT_EQ(place->offset_bytes, second.index * SlotAllocator::SlotBytes(this->kBlock));
  EXPECT_EQ(this->pool_->Export(this->pool_->Address(first))->extent_id, place->extent_id);
  // The same owner keeps the memory and its name.
  this->pool_->Free(first);
  this->pool_->Free(second);
  const SlotRef again = *this->pool_->Allocate(this->a_, this->kBlock);
  EXPECT_EQ(this->pool_->Export(this->pool_->Address(again))->extent_id, place->extent_id);
  this->Fill(again, 1);
  uint8_t* const address = this->pool_->Address(again);
  this->pool_->Free(again);
  for (SlotRef slot : this->TakeAll(this->b_, this->kBlock)) {
    EXPECT_NE(this->pool_->Export(this->pool_->Address(slot))->extent_id, place->extent_id);
    if (this->pool_->Address(slot) != address) continue;
    const std::vector<uint8_t> bytes = TypeParam::Get(address, this->kBlock);
    EXPECT_TRUE(std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; }));
  }
}

TYPED_TEST_P(PoolConformance, AddressesElsewhereHaveNoPlace) {
  const int elsewhere = 0;
  EXPECT_FALSE(this->pool_->Export(reinterpret_cast<const uint8_t*>(&elsewhere)).has_value());
  EXPECT_FALSE(this->pool_->Export(nullptr).has_value());
}

TYPED_TEST_P(PoolConformance, ASlotThatIsLostOrHeldTwiceIsNoticed) {
  const SlotRef slot = *this->pool_->Allocate(this->a_, this->kBlock);
  EXPECT_FALSE(this->pool_->CheckInvariants({}).ok());
  this->ExpectSound({slot});
  this->pool_->Free(slot);
  EXPECT_FALSE(this->pool_->CheckInvariants({slot}).ok());
}

REGISTER_TYPED_TEST_SUITE_P(PoolConformance, StartsEmptyWithItsCapacity, WhatNobodyHadYetIsZeroes,
                            SlotsAreAlignedApartAndAllOfTheMemory, EveryByteOfEverySlotIsItsOwn,
                            AFreedSlotIsGivenOutAgain, AGivenSlotIsTakenAsIfItHadBeenAllocated,
                            SyncLosesNothing, TwoKeySpacesNeverShareAnExtent,
                            AnEmptiedExtentGoesToWhoeverNeedsItWiped,
                            ADrainingExtentGivesOutNoSlots, CopyTakesABlockToAnotherSlot,
                            BytesGoToHostMemoryAndBack, TheChecksumIsTheDefinedOne,
                            AnExportedExtentGetsOtherMemoryWithItsNextOwner,
                            AddressesElsewhereHaveNoPlace, ASlotThatIsLostOrHeldTwiceIsNoticed);

}  // namespace reprise::shard
