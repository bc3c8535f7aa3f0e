#include "service/shard/work_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

#include "absl/synchronization/notification.h"

namespace reprise::shard {
namespace {

TEST(WorkQueueTest, EveryJobRunsThoseThatWaitAtTheEndIncluded) {
  std::atomic<int> ran = 0;
  {
    WorkQueue queue(3);
    for (int i = 0; i < 1000; ++i) queue.Run([&ran] { ++ran; });
  }
  EXPECT_EQ(ran, 1000);
}

TEST(WorkQueueTest, OneThreadKeepsTheOrder) {
  std::vector<int> order;
  {
    WorkQueue queue(1);
    for (int i = 0; i < 100; ++i) queue.Run([&order, i] { order.push_back(i); });
  }
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[i], i);
}

TEST(WorkQueueTest, AJobThatTakesLongDoesNotHoldUpTheOtherThreads) {
  absl::Notification second_ran;
  WorkQueue queue(2);
  queue.Run([&second_ran] { second_ran.WaitForNotification(); });
  queue.Run([&second_ran] { second_ran.Notify(); });
  second_ran.WaitForNotification();
}

}  // namespace
}  // namespace reprise::shard
