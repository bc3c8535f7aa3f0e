#include "service/shard/pin_board.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace reprise::shard {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

struct Owner final : PinOwner {
  void Unpinned(const std::vector<BlockId>& blocks) override {
    unpinned.insert(unpinned.end(), blocks.begin(), blocks.end());
  }
  std::vector<BlockId> unpinned;
};

TEST(PinBoard, TheOwnerIsToldWhenTheLastCopyOfAPinGoes) {
  Owner owner;
  const auto board = std::make_shared<PinBoard>(&owner, nullptr);
  std::shared_ptr<const void> pin = PinBoard::Pin(board, {1, 2});
  std::shared_ptr<const void> copy = pin;
  pin.reset();
  EXPECT_THAT(owner.unpinned, IsEmpty());
  copy.reset();
  EXPECT_THAT(owner.unpinned, ElementsAre(1, 2));
}

TEST(PinBoard, AClosedBoardTellsNobody) {
  Owner owner;
  auto board = std::make_shared<PinBoard>(&owner, nullptr);
  std::shared_ptr<const void> pin = PinBoard::Pin(board, {1});
  board->Close();
  board.reset();
  pin.reset();
  EXPECT_THAT(owner.unpinned, IsEmpty());
}

}  // namespace
}  // namespace reprise::shard
