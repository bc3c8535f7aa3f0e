#include "service/pool/slot_allocator.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <map>
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

TEST(SlotAllocatorDeathTest, FreeingAFreeSlotIsOurOwnBug) {
  SlotAllocator slots(1, 1024);
  ASSERT_TRUE(slots.Allocate(KeySpaceId(1), 64).has_value());
  EXPECT_DEATH(slots.Free({0, 1}), "CHECK failed");
  EXPECT_DEATH(slots.Free({9, 0}), "CHECK failed");
}

}  // namespace
}  // namespace reprise::shard
