#include "service/tiers/mover.h"

#include "tests/unit/service/tiers/tiers_fixture.h"

namespace reprise::shard {
namespace {

class MoverTest : public TiersTest {
 protected:
  MoveOutcome MoveDown() {
    return Move(*pool_, {.from = hbm_, .to = dram_, .shape = kShape, .checksum = checksum_});
  }
  const SlotRef hbm_ = Take(kHbm), dram_ = Take(kDram);
  Checksum128 checksum_ = Fill(hbm_, 1);
};

TEST_F(MoverTest, TheBytesArriveAndAreChecked) {
  EXPECT_EQ(MoveDown(), MoveOutcome::kMoved);
  EXPECT_TRUE(Holds(dram_, 1));
}

TEST_F(MoverTest, BytesThatArriveWrongAreNoticed) {
  control_->corrupts = true;
  EXPECT_EQ(MoveDown(), MoveOutcome::kCorrupt);
}

TEST_F(MoverTest, BytesThatWereWrongBeforeAreNoticed) {
  Fill(hbm_, 2);
  EXPECT_EQ(MoveDown(), MoveOutcome::kCorrupt);
}

TEST_F(MoverTest, ADeviceThatRefusesSaysNothingOfTheBytes) {
  control_->refuses = true;
  EXPECT_EQ(MoveDown(), MoveOutcome::kRefused);
}

}  // namespace
}  // namespace reprise::shard
