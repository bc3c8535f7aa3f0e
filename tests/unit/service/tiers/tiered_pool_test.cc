#include "service/tiers/tiered_pool.h"

#include "tests/unit/service/tiers/tiers_fixture.h"

namespace reprise::shard {
namespace {

TEST_F(TiersTest, AnExtentsNumberSaysItsLevel) {
  ASSERT_EQ(pool_->levels(), 2u);
  EXPECT_EQ(pool_->tier(kHbm), Tier::kHbm);
  EXPECT_EQ(pool_->tier(kDram), Tier::kDram);
  EXPECT_EQ(pool_->extents(), pool_->extents(kHbm) + pool_->extents(kDram));
  std::set<std::pair<uint32_t, uint32_t>> seen;
  for (Level level : {kHbm, kDram}) {
    while (const auto slot = pool_->Allocate(level, a_, kBlock)) {
      EXPECT_EQ(pool_->LevelOf(*slot), level);
      EXPECT_EQ(pool_->TierOf(*slot), pool_->tier(level));
      EXPECT_TRUE(seen.emplace(slot->extent, slot->index).second);
    }
    for (uint32_t extent : pool_->ExtentsOf(level, a_)) EXPECT_EQ(pool_->LevelOf(extent), level);
  }
  absl::flat_hash_set<SlotRef> held;
  for (const auto& [extent, index] : seen) held.insert({extent, index});
  EXPECT_TRUE(pool_->CheckInvariants(held).ok());
  held.erase(held.begin());
  EXPECT_FALSE(pool_->CheckInvariants(held).ok());
}

TEST_F(TiersTest, ASlotIsTakenByItsPoolsNumberAndNamedByTheNumberOverAll) {
  for (Level level : {kHbm, kDram}) {
    const SlotRef of_pool{.extent = 1, .index = 3};
    const std::optional<SlotRef> slot = pool_->Take(level, a_, kBlock, of_pool);
    ASSERT_TRUE(slot.has_value());
    EXPECT_EQ(pool_->LevelOf(*slot), level);
    EXPECT_EQ(pool_->InPool(*slot), of_pool);
    EXPECT_EQ(pool_->used_slots(slot->extent), 1u);
    EXPECT_FALSE(pool_->Take(level, a_, kBlock, of_pool).has_value()) << "it is in use";
    EXPECT_FALSE(pool_->Take(level, b_, kBlock, {pool_->extents(level), 0}).has_value())
        << "another level's extent";
    Fill(*slot, 4);
    while (const auto other = pool_->Allocate(level, a_, kBlock)) EXPECT_NE(*other, *slot);
    EXPECT_TRUE(Holds(*slot, 4));
  }
}

TEST_F(TiersTest, SyncIsOfOneLevelAndMemoryHasNothingToDo) {
  EXPECT_TRUE(pool_->Sync(kHbm).ok());
  EXPECT_TRUE(pool_->Sync(kDram).ok());
}

TEST_F(TiersTest, RoomIsWhatAllocateGives) {
  for (Level level : {kHbm, kDram}) {
    Take(level);
    const uint64_t room = pool_->Room(level, a_, kBlock);
    uint64_t given = 0;
    while (pool_->Allocate(level, a_, kBlock).has_value()) ++given;
    EXPECT_EQ(given, room);
  }
  EXPECT_EQ(pool_->Room(kHbm, b_, uint64_t{1} << 30), 0u);
  EXPECT_FALSE(pool_->Allocate(kHbm, b_, uint64_t{1} << 30).has_value());
}

TEST_F(TiersTest, AnExtentThatCannotChangeHandsIsRoomForItsOwnerAlone) {
  const SlotRef slot = Take(kHbm);
  const uint64_t room = pool_->Room(kHbm, b_, kBlock);
  ASSERT_TRUE(pool_->Export(pool_->Address(slot)).has_value());
  EXPECT_TRUE(pool_->Transferable(slot.extent));
  ASSERT_TRUE(pool_->Share(slot.extent, AttachmentId(9)).ok());
  EXPECT_FALSE(pool_->Transferable(slot.extent));
  pool_->Free(slot);
  EXPECT_EQ(pool_->Room(kHbm, b_, kBlock), room);
  EXPECT_GT(pool_->Room(kHbm, a_, kBlock), room);
  uint64_t given = 0;
  while (pool_->Allocate(kHbm, b_, kBlock).has_value()) ++given;
  EXPECT_EQ(given, room);
  pool_->Unshared(AttachmentId(9));
  EXPECT_TRUE(pool_->Transferable(slot.extent));
  EXPECT_TRUE(pool_->Allocate(kHbm, b_, kBlock).has_value());
}

TEST_F(TiersTest, ExtentIdsOfTwoPoolsNeverClash) {
  std::set<uint64_t> ids;
  size_t extents = 0;
  for (Level level : {kHbm, kDram}) {
    while (const auto slot = pool_->Allocate(level, a_, kBlock)) {
      const auto place = pool_->Export(pool_->Address(*slot));
      ASSERT_TRUE(place.has_value());
      EXPECT_EQ(place->extent, slot->extent);
      ids.insert(place->extent_id);
    }
    extents += pool_->extents(level);
  }
  EXPECT_EQ(ids.size(), extents);
  EXPECT_FALSE(pool_->Export(nullptr).has_value());
}

TEST_F(TiersTest, ABlockIsCopiedBetweenAnyTwoTiers) {
  const SlotRef hbm = Take(kHbm), other_hbm = Take(kHbm), dram = Take(kDram);
  Fill(hbm, 1);
  ASSERT_TRUE(pool_->Copy(hbm, other_hbm, kBlock).ok());
  EXPECT_TRUE(Holds(other_hbm, 1));
  ASSERT_TRUE(pool_->Copy(other_hbm, dram, kBlock).ok());
  EXPECT_TRUE(Holds(dram, 1));
  Fill(dram, 2);
  ASSERT_TRUE(pool_->Copy(dram, hbm, kBlock).ok());
  EXPECT_TRUE(Holds(hbm, 2));
}

TEST_F(TiersTest, ChecksumsOfSlotsOnAnyLevelsComeInTheirOrder) {
  std::vector<SlotRef> slots;
  std::vector<Checksum128> expected;
  for (const Level level : {kHbm, kHbm, kDram, kHbm, kHbm, kHbm, kDram, kDram}) {
    slots.push_back(Take(level));
    expected.push_back(Fill(slots.back(), slots.size()));
  }
  const auto checksums = pool_->Checksums(slots, kShape);
  ASSERT_TRUE(checksums.ok()) << checksums.status();
  EXPECT_EQ(*checksums, expected);
  EXPECT_EQ(control_->checksum_calls, 2u) << "what lies together is given to the device together";
  control_->refuses = true;
  EXPECT_TRUE(absl::IsInternal(pool_->Checksums(slots, kShape).status()));
}

TEST_F(TiersTest, HostMemoryIsNoDevices) {
  const SlotRef dram = Take(kDram);
  std::vector<uint8_t> bytes(kBlock);
  EXPECT_TRUE(absl::IsInternal(pool_->CopyToHost({pool_->Address(dram), kBlock}, bytes)));
  EXPECT_TRUE(absl::IsInternal(pool_->CopyFromHost(bytes, {pool_->Address(dram), kBlock})));
}

}  // namespace
}  // namespace reprise::shard
