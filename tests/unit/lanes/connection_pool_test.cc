#include "cluster/lanes/connection_pool.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace reprise::lanes {
namespace {

const MonotonicDeadline kSoon = MonotonicDeadline::After(absl::Minutes(2));

// One end of a connection that its peer may close.
class FakeSocket {
 public:
  explicit FakeSocket(int number) : number_(number) {}
  int number() const { return number_; }
  void Close() { *open_ = false; }
  bool Quiet() const { return *open_; }

 private:
  int number_;
  std::shared_ptr<std::atomic<bool>> open_ = std::make_shared<std::atomic<bool>>(true);
};

class ConnectionPoolTest : public ::testing::Test {
 protected:
  using Pool = ConnectionPool<FakeSocket>;
  Pool::Options Two() {
    return {.lane = "test lane",
            .connections_max = 2,
            .retry_after = absl::ZeroDuration(),
            .dial = [this](MonotonicDeadline) -> absl::StatusOr<FakeSocket> {
              if (unreachable_) return LaneDown("nobody is there");
              return FakeSocket(dialled_++);
            }};
  }
  std::atomic<int> dialled_{0};
  std::atomic<bool> unreachable_{false};
};

TEST_F(ConnectionPoolTest, WhatIsGivenBackIsLentAgainUnlessItsPeerClosedIt) {
  Pool pool(Two());
  auto first = pool.Borrow(kSoon);
  ASSERT_TRUE(first.ok());
  pool.GiveBack(&*first);
  auto again = pool.BorrowNow(kSoon);
  ASSERT_TRUE(again.has_value() && again->ok());
  EXPECT_EQ((*again)->number(), first->number());
  (*again)->Close();
  pool.GiveBack(&**again);
  EXPECT_NE(pool.Borrow(kSoon)->number(), first->number());
}

TEST_F(ConnectionPoolTest, WhoDoesNotWaitGetsNothingWhileAllAreLent) {
  Pool pool(Two());
  auto one = pool.BorrowNow(kSoon), two = pool.BorrowNow(kSoon);
  ASSERT_TRUE(one.has_value() && one->ok() && two.has_value() && two->ok());
  EXPECT_FALSE(pool.BorrowNow(kSoon).has_value());
  pool.GiveBack(nullptr);
  EXPECT_TRUE(pool.BorrowNow(kSoon).has_value());
}

TEST_F(ConnectionPoolTest, ADialThatFailsTakesNobodysPlace) {
  Pool pool(Two());
  unreachable_ = true;
  for (int i = 0; i < 5; ++i) {
    const auto refused = pool.BorrowNow(kSoon);
    ASSERT_TRUE(refused.has_value()) << i;
    EXPECT_TRUE(IsLaneDown(refused->status()));
    EXPECT_TRUE(IsLaneDown(pool.Borrow(kSoon).status()));
  }
  unreachable_ = false;
  EXPECT_TRUE(pool.Borrow(kSoon).ok());
  EXPECT_TRUE(pool.Borrow(kSoon).ok());
}

// One idle connection lets one borrower in, however many look at once.
TEST_F(ConnectionPoolTest, NoMoreAreLentAtOnceThanMayBe) {
  Pool pool(Two());
  std::atomic<int> lent{0}, most{0};
  const auto use = [&](absl::StatusOr<FakeSocket> socket) {
    ASSERT_TRUE(socket.ok());
    const int now = ++lent;
    for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
    }
    std::this_thread::yield();
    --lent;
    pool.GiveBack(&*socket);
  };
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 8; ++caller) {
    callers.emplace_back([&, waits = caller % 2 == 0] {
      for (int i = 0; i < 2000; ++i) {
        std::optional<absl::StatusOr<FakeSocket>> socket;
        if (waits) {
          socket = pool.Borrow(kSoon);
        } else {
          socket = pool.BorrowNow(kSoon);
        }
        if (socket.has_value()) use(*std::move(socket));
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_LE(most, 2);
  EXPECT_EQ(dialled_, 2) << "no connection was closed";
}

}  // namespace
}  // namespace reprise::lanes
