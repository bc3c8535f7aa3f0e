#include "service/shard/watch_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/types/refusal.h"

namespace reprise::shard {
namespace {

BlockEvent Named(int i) {
  return {.session_id = absl::StrCat(i)};
}

TEST(WatchQueue, TheSnapshotComesBeforeWhatWasPushed) {
  WatchQueue queue({Named(1), Named(2)}, 10);
  EXPECT_TRUE(queue.Push(Named(3)));
  for (const char* expected : {"1", "2", "3"}) {
    const auto event = queue.Next(absl::InfinitePast());
    ASSERT_TRUE(event.ok() && event->has_value());
    EXPECT_EQ((*event)->session_id, expected);
  }
  const auto none = queue.Next(absl::InfinitePast());
  ASSERT_TRUE(none.ok());
  EXPECT_FALSE(none->has_value());
}

TEST(WatchQueue, BeyondItsBoundItIsCutOffAfterWhatItHas) {
  WatchQueue queue({}, 2);
  EXPECT_TRUE(queue.Push(Named(1)));
  EXPECT_TRUE(queue.Push(Named(2)));
  EXPECT_FALSE(queue.Push(Named(3)));
  EXPECT_TRUE(queue.Next(absl::InfinitePast())->has_value());
  EXPECT_FALSE(queue.Push(Named(4)));  // for good: an event was lost
  EXPECT_TRUE(queue.Next(absl::InfinitePast())->has_value());
  EXPECT_EQ(RefusalReason(queue.Next(absl::InfinitePast()).status()), "WATCHER_TOO_SLOW");
}

TEST(WatchQueue, ASnapshotLargerThanTheBoundIsDelivered) {
  std::vector<BlockEvent> snapshot;
  for (int i = 0; i < 100; ++i) snapshot.push_back(Named(i));
  WatchQueue queue(std::move(snapshot), 2);
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(queue.Next(absl::InfinitePast())->has_value());
}

TEST(WatchQueue, AWaitingReaderIsWoken) {
  WatchQueue queue({}, 10);
  std::thread reader([&] {
    const auto event = queue.Next(absl::Now() + absl::Seconds(60));
    ASSERT_TRUE(event.ok() && event->has_value());
    EXPECT_EQ((*event)->session_id, "1");
  });
  queue.Push(Named(1));
  reader.join();
}

TEST(WatchQueue, NobodyIsCalledAfterStopNotifying) {
  WatchQueue queue({}, 10);
  std::atomic<int> calls{0};
  queue.NotifyWith([&] { ++calls; });
  EXPECT_EQ(calls, 0);  // nothing waits
  queue.Push(Named(1));
  queue.Notify();
  EXPECT_EQ(calls, 1);
  queue.StopNotifying();
  queue.Notify();
  EXPECT_EQ(calls, 1);
  queue.NotifyWith([&] { ++calls; });
  EXPECT_EQ(calls, 2);  // something was waiting
}

}  // namespace
}  // namespace reprise::shard
