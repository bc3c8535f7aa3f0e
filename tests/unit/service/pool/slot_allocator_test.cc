#include "service/pool/slot_allocator.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <map>
#include <set>
#include <vector>

namespace reprise::shard {
namespace {

TEST(SlotAllocator, SlotsAreRoundedUpToTheirAlignment) {
  EXPECT_EQ(SlotAllocator::SlotBytes(1), 64u);
  EXPECT_EQ(SlotAllocator::SlotBytes(64), 64u);
  EXPECT_EQ(SlotAllocator::SlotBytes(65), 128u);
}

TEST(SlotAllocator, TheChargeOfAFullPoolIsItsCapacityEvenWhereSlotsDoNotFitExtents) {
  SlotAllocator slots(4, 1000);
  for (int i = 0; i < 4 * 2; ++i) ASSERT_TRUE(slots.Allocate(KeySpaceId(1), 384).has_value());
  EXPECT_FALSE(slots.Allocate(KeySpaceId(1), 384).has_value());
  EXPECT_EQ(slots.used_bytes(), 8u * 384);
  EXPECT_EQ(slots.charged_bytes(), 4000u);
}

TEST(SlotAllocator, AnExtentRemembersItsPreviousOwner) {
  SlotAllocator slots(1, 1024);
  const auto first = slots.Allocate(KeySpaceId(1), 64);
  EXPECT_TRUE(first->opened_extent);
  EXPECT_FALSE(first->previous_owner);
  EXPECT_FALSE(slots.Allocate(KeySpaceId(1), 64)->opened_extent);
  slots.Free({0, 0});
  slots.Free({0, 1});
  EXPECT_EQ(slots.Allocate(KeySpaceId(2), 128)->previous_owner, KeySpaceId(1));
}

TEST(SlotAllocator, ExtentsOfAnEarlierProcessSaySo) {
  SlotAllocator slots(3, 1024, kEarlierProcess);
  EXPECT_TRUE(slots.Take(KeySpaceId(1), 64, {1, 0}));
  for (int i = 0; i < 2; ++i) {
    const auto grant = slots.Allocate(KeySpaceId(2), 1024);
    EXPECT_EQ(grant->previous_owner, kEarlierProcess);
    EXPECT_NE(grant->slot.extent, 1u);
  }
  EXPECT_FALSE(slots.Allocate(KeySpaceId(1), 64)->opened_extent) << "what was taken is its own";
}

TEST(SlotAllocator, AGivenSlotIsTakenOnce) {
  SlotAllocator slots(4, 1024);
  EXPECT_TRUE(slots.Take(KeySpaceId(1), 128, {2, 5}));
  EXPECT_FALSE(slots.Take(KeySpaceId(1), 128, {2, 5}));
  EXPECT_TRUE(slots.in_use({2, 5}));
  EXPECT_EQ(slots.owner(2), KeySpaceId(1));
  EXPECT_EQ(slots.used_bytes(), 128u);
  EXPECT_EQ(slots.unowned_extents(), 3u);
  for (uint32_t i = 0; i < 8; ++i) EXPECT_EQ(slots.Take(KeySpaceId(1), 128, {2, i}), i != 5);
  EXPECT_EQ(slots.Use(KeySpaceId(1)).free_slots, 0u);
  EXPECT_TRUE(slots.CheckInvariants().ok()) << slots.CheckInvariants();
}

TEST(SlotAllocator, WhatCannotBeTakenIsNot) {
  SlotAllocator slots(4, 1024);
  ASSERT_TRUE(slots.Take(KeySpaceId(1), 128, {0, 0}));
  EXPECT_FALSE(slots.Take(KeySpaceId(2), 128, {0, 1})) << "another key space's extent";
  EXPECT_FALSE(slots.Take(KeySpaceId(1), 256, {0, 1})) << "another size";
  EXPECT_FALSE(slots.Take(KeySpaceId(1), 256, {1, 1})) << "another size in another extent";
  EXPECT_FALSE(slots.Take(KeySpaceId(1), 128, {0, 8})) << "no such slot";
  EXPECT_FALSE(slots.Take(KeySpaceId(1), 128, {1, 8})) << "no such slot of an unowned extent";
  EXPECT_FALSE(slots.Take(KeySpaceId(1), 128, {4, 0})) << "no such extent";
  EXPECT_FALSE(slots.Take(KeySpaceId(2), 1025, {1, 0})) << "more than an extent";
  EXPECT_FALSE(slots.Take(KeySpaceId(2), 0, {1, 0}));
  EXPECT_FALSE(slots.Take(KeySpaceId(2), UINT64_MAX, {1, 0}));
  EXPECT_EQ(slots.unowned_extents(), 3u);
  EXPECT_EQ(slots.used_bytes(), 128u);
  EXPECT_EQ(slots.Use(KeySpaceId(2)).extents, 0u);
  EXPECT_TRUE(slots.CheckInvariants().ok()) << slots.CheckInvariants();
}

TEST(SlotAllocator, AnExtentThatWasAnothersSinceIsNotTaken) {
  SlotAllocator slots(1, 1024, kEarlierProcess);
  ASSERT_TRUE(slots.Take(KeySpaceId(1), 128, {0, 0}));
  slots.Free({0, 0});
  EXPECT_FALSE(slots.Take(KeySpaceId(2), 128, {0, 0})) << "the bytes are not its own";
  EXPECT_TRUE(slots.Take(KeySpaceId(1), 128, {0, 0}));
}

TEST(SlotAllocator, ADrainingExtentsSlotIsTakenAndTheExtentStaysSo) {
  SlotAllocator slots(2, 1024);
  ASSERT_TRUE(slots.Take(KeySpaceId(1), 512, {0, 0}));
  slots.SetDraining(0, true);
  EXPECT_TRUE(slots.Take(KeySpaceId(1), 512, {0, 1}));
  EXPECT_TRUE(slots.CheckInvariants().ok()) << slots.CheckInvariants();
  slots.Free({0, 1});
  EXPECT_EQ(slots.Allocate(KeySpaceId(1), 512)->slot.extent, 1u);
}

TEST(SlotAllocator, AnUndoneGrantIsTheLastToBeOpenedAgainAlsoBesideTakenExtents) {
  SlotAllocator slots(4, 1024);
  ASSERT_TRUE(slots.Take(KeySpaceId(1), 1024, {1, 0}));
  const auto undone = slots.Allocate(KeySpaceId(2), 1024);
  slots.Undo(*undone);
  EXPECT_TRUE(slots.CheckInvariants().ok()) << slots.CheckInvariants();
  for (int i = 0; i < 2; ++i) {
    EXPECT_NE(slots.Allocate(KeySpaceId(2), 1024)->slot.extent, undone->slot.extent);
  }
  EXPECT_TRUE(slots.Take(KeySpaceId(2), 1024, undone->slot));
  EXPECT_EQ(slots.unowned_extents(), 0u);
}

// Of each extent that a used allocator has, a random part goes to a fresh one, in a random order.
TEST(SlotAllocator, WhatIsTakenOfAnotherOnesBooksIsKeptLikeOnesOwn) {
  EXPECT_TRUE(rc::check("taken against model", [](const std::vector<std::pair<uint8_t, bool>>& of) {
    constexpr uint32_t kExtents = 6;
    SlotAllocator old(kExtents, 1024), slots(kExtents, 1024, kEarlierProcess);
    std::vector<std::pair<KeySpaceId, SlotRef>> held;
    const auto bytes = [](KeySpaceId space) { return uint64_t{100} * space.value; };
    for (const auto& [number, taken] : of) {
      const KeySpaceId space(1 + number % 3);
      const auto grant = old.Allocate(space, bytes(space));
      if (grant.has_value() && taken) held.emplace_back(space, grant->slot);
    }
    const auto order =
        *rc::gen::container<std::vector<uint32_t>>(held.size(), rc::gen::arbitrary<uint32_t>());
    for (size_t i = 0; i < held.size(); ++i) std::swap(held[i], held[order[i] % held.size()]);
    for (const auto& [space, slot] : held) {
      RC_ASSERT(slots.Take(space, bytes(space), slot));
      RC_ASSERT(!slots.Take(space, bytes(space), slot));
      RC_ASSERT(slots.CheckInvariants().ok());
    }
    std::map<uint32_t, uint64_t> used;  // by key space
    for (const auto& [space, slot] : held) {
      RC_ASSERT(slots.in_use(slot) && slots.owner(slot.extent) == space);
      ++used[space.value];
    }
    for (uint32_t id : {1, 2, 3}) RC_ASSERT(slots.Use(KeySpaceId(id)).used_slots == used[id]);
    // The rest of it, and then all of it back.
    const uint32_t unowned = slots.unowned_extents();
    uint32_t opened = 0;
    std::set<std::pair<uint32_t, uint32_t>> seen;
    for (const auto& [space, slot] : held) seen.emplace(slot.extent, slot.index);
    for (const KeySpaceId space : {KeySpaceId(2), KeySpaceId(3), KeySpaceId(1)}) {
      while (const auto grant = slots.Allocate(space, bytes(space))) {
        RC_ASSERT(seen.emplace(grant->slot.extent, grant->slot.index).second);
        RC_ASSERT(!grant->opened_extent || grant->previous_owner == kEarlierProcess);
        opened += grant->opened_extent ? 1 : 0;
        held.emplace_back(space, grant->slot);
      }
      RC_ASSERT(slots.CheckInvariants().ok());
    }
    RC_ASSERT(opened == unowned && slots.unowned_extents() == 0u);
    uint64_t used_bytes = 0;
    for (const auto& [space, slot] : held) used_bytes += SlotAllocator::SlotBytes(bytes(space));
    RC_ASSERT(slots.used_bytes() == used_bytes);
    for (const auto& [space, slot] : held) slots.Free(slot);
    RC_ASSERT(slots.CheckInvariants().ok());
    RC_ASSERT(slots.unowned_extents() == kExtents);
    RC_ASSERT(slots.used_bytes() == 0u && slots.charged_bytes() == 0u);
  }));
}

TEST(SlotAllocator, RandomTakingAndGivingBackKeepsTheBooks) {
  EXPECT_TRUE(rc::check(
      "allocator against model", [](const std::vector<std::tuple<uint8_t, uint8_t>>& steps) {
        SlotAllocator slots(5, 1024);
        std::map<uint32_t, std::vector<SlotRef>> held;  // by key space
        for (const auto& [verb, argument] : steps) {
          const uint32_t space = 1 + argument % 3;
          const uint64_t bytes = 100 * space;
          std::vector<SlotRef>& mine = held[space];
          if (verb % 8 == 7) {
            slots.SetDraining(argument % 5, verb % 16 == 15);
          } else if (verb % 2 == 0) {
            const SpaceUse before = slots.Use(KeySpaceId(space));
            const auto grant = slots.Allocate(KeySpaceId(space), bytes);
            RC_ASSERT(grant.has_value() || before.free_slots == 0);
            if (grant.has_value()) {
              RC_ASSERT(slots.owner(grant->slot.extent) == KeySpaceId(space));
              mine.push_back(grant->slot);
            } else {
              RC_ASSERT(before.free_slots == 0 && slots.unowned_extents() == 0);
            }
          } else if (!mine.empty()) {
            std::swap(mine[argument % mine.size()], mine.back());
            slots.Free(mine.back());
            mine.pop_back();
          }
          RC_ASSERT(slots.CheckInvariants().ok());
          for (const auto& [id, list] : held) {
            RC_ASSERT(slots.Use(KeySpaceId(id)).used_slots == list.size());
            for (SlotRef slot : list)
              RC_ASSERT(slots.in_use(slot) && slots.owner(slot.extent) == KeySpaceId(id));
          }
        }
        for (auto& [id, list] : held) {
          for (SlotRef slot : list) slots.Free(slot);
        }
        RC_ASSERT(slots.unowned_extents() == 5u);
        RC_ASSERT(slots.used_bytes() == 0u && slots.charged_bytes() == 0u);
      }));
}

TEST(SlotAllocatorDeathTest, TheEarlierProcessIsNoKeySpaceThatHasSlots) {
  SlotAllocator slots(1, 1024, kEarlierProcess);
  EXPECT_DEATH((void)slots.Allocate(kEarlierProcess, 64), "CHECK failed");
  EXPECT_DEATH((void)slots.Take(kEarlierProcess, 64, {0, 0}), "CHECK failed");
}

TEST(SlotAllocatorDeathTest, FreeingAFreeSlotIsOurOwnBug) {
  SlotAllocator slots(1, 1024);
  ASSERT_TRUE(slots.Allocate(KeySpaceId(1), 64).has_value());
  EXPECT_DEATH(slots.Free({0, 1}), "CHECK failed");
  EXPECT_DEATH(slots.Free({9, 0}), "CHECK failed");
}

}  // namespace
}  // namespace reprise::shard
