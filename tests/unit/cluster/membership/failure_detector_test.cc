#include "cluster/membership/failure_detector.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace reprise::cluster {
namespace {

const absl::Time kStart = absl::UnixEpoch() + absl::Hours(1);
const ShardId kShard{"shard-0"};
constexpr absl::Duration kInterval = limits::kHeartbeatInterval;
const absl::Duration kSilenceMax = kInterval * limits::kHeartbeatsMissedMax;

TEST(FailureDetectorTest, AShardNeverHeardIsNotAlive) {
  FailureDetector detector;
  EXPECT_FALSE(detector.IsAlive(kShard, kStart));
  EXPECT_EQ(detector.Silence(kShard, kStart), absl::InfiniteDuration());
  EXPECT_TRUE(detector.Check(kStart).empty());
}

TEST(FailureDetectorTest, AShardIsDeadAfterItsMissedHeartbeatsAndNotBefore) {
  FailureDetector detector;
  EXPECT_TRUE(detector.Heartbeat(kShard, kStart));
  EXPECT_TRUE(detector.IsAlive(kShard, kStart + kSilenceMax));
  EXPECT_FALSE(detector.IsAlive(kShard, kStart + kSilenceMax + absl::Nanoseconds(1)));
}

TEST(FailureDetectorTest, TheNextHeartbeatMakesItAliveAgain) {
  FailureDetector detector;
  detector.Heartbeat(kShard, kStart);
  const absl::Time later = kStart + absl::Hours(2);
  EXPECT_FALSE(detector.IsAlive(kShard, later));
  EXPECT_TRUE(detector.Heartbeat(kShard, later));
  EXPECT_TRUE(detector.IsAlive(kShard, later));
  EXPECT_FALSE(detector.Heartbeat(kShard, later + kInterval));
}

TEST(FailureDetectorTest, ChecksReportEachChangeOnce) {
  FailureDetector detector;
  detector.Heartbeat({"b"}, kStart);
  detector.Heartbeat({"a"}, kStart);
  auto changes = detector.Check(kStart);
  ASSERT_EQ(changes.size(), 2u);
  EXPECT_EQ(changes[0].id.name, "a");
  EXPECT_TRUE(changes[0].alive);
  EXPECT_TRUE(detector.Check(kStart + kInterval).empty());
  detector.Heartbeat({"a"}, kStart + kSilenceMax);
  changes = detector.Check(kStart + kSilenceMax + kInterval);
  ASSERT_EQ(changes.size(), 1u);
  EXPECT_EQ(changes[0].id.name, "b");
  EXPECT_FALSE(changes[0].alive);
}

TEST(FailureDetectorTest, AForgottenShardIsNotAlive) {
  FailureDetector detector;
  detector.Heartbeat(kShard, kStart);
  detector.Forget(kShard);
  EXPECT_FALSE(detector.IsAlive(kShard, kStart));
}

TEST(FailureDetectorTest, ALateReportOfAnOlderHeartbeatTakesNothingBack) {
  FailureDetector detector;
  detector.Heartbeat(kShard, kStart + kInterval);
  detector.Heartbeat(kShard, kStart);
  EXPECT_TRUE(detector.IsAlive(kShard, kStart + kInterval + kSilenceMax));
}

}  // namespace
}  // namespace reprise::cluster
