#include "client/cpp/call_policy.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/types/refusal.h"

namespace reprise::client {
namespace {

const absl::Time kStart = absl::UnixEpoch() + absl::Hours(1);

TEST(CallPolicyTest, ADeadlineIsSharedAmongTheTriesThatAreLeft) {
  struct Row {
    absl::Duration now, deadline;
    int tries;
    absl::Duration want;
  };
  const Row rows[] = {
      {absl::Seconds(0), absl::Seconds(3), 3, absl::Seconds(1)},
      {absl::Seconds(1), absl::Seconds(3), 2, absl::Seconds(2)},
      {absl::Seconds(2), absl::Seconds(3), 1, absl::Seconds(3)},
      {absl::Seconds(4), absl::Seconds(3), 3, absl::Seconds(3)},
      {absl::Seconds(0), absl::InfiniteDuration(), 3, absl::InfiniteDuration()},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(TryDeadline(kStart + row.now, kStart + row.deadline, row.tries), kStart + row.want)
        << row.now << " " << row.deadline << " " << row.tries;
  }
}

TEST(CallPolicyTest, OnlyTheShardsOwnFailuresCountAgainstIt) {
  struct Row {
    absl::Status status;
    absl::Duration budget;
    Verdict want;
  };
  const Row rows[] = {
      {absl::OkStatus(), absl::Seconds(1), Verdict::kGood},
      {absl::NotFoundError(""), absl::Seconds(1), Verdict::kGood},
      {absl::ResourceExhaustedError(""), absl::Seconds(1), Verdict::kGood},
      {absl::InvalidArgumentError(""), absl::Seconds(1), Verdict::kGood},
      {absl::DataLossError(""), absl::Seconds(1), Verdict::kGood},
      {absl::UnavailableError(""), absl::Seconds(1), Verdict::kBad},
      {Refusal(absl::StatusCode::kUnavailable, "DRAINING", "it drains"), absl::Seconds(1),
       Verdict::kGood},
      {absl::InternalError(""), absl::Seconds(1), Verdict::kBad},
      {Refusal(absl::StatusCode::kInternal, "SHARD_GPU_LOST", "its GPU"), absl::Seconds(1),
       Verdict::kBad},
      {absl::DeadlineExceededError(""), absl::Seconds(1), Verdict::kHung},
      {absl::DeadlineExceededError(""), limits::kHungCallMin / 2, Verdict::kUnknown},
      {absl::CancelledError(""), absl::Seconds(1), Verdict::kUnknown},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(Judge(row.status, row.budget), row.want) << row.status << " " << row.budget;
  }
}

TEST(BreakerTest, OpensAfterFailuresInARowAndASuccessStartsTheCountAnew) {
  Breaker breaker;
  for (int i = 0; i < limits::kBreakerFailuresMax - 1; ++i) breaker.Report(Verdict::kBad, kStart);
  EXPECT_TRUE(breaker.Allow(kStart));
  breaker.Report(Verdict::kGood, kStart);
  for (int i = 0; i < limits::kBreakerFailuresMax - 1; ++i) breaker.Report(Verdict::kBad, kStart);
  EXPECT_TRUE(breaker.Allow(kStart));
  breaker.Report(Verdict::kBad, kStart);
  EXPECT_FALSE(breaker.Allow(kStart));
}

TEST(BreakerTest, AShardThatHangsIsShutOutAtOnce) {
  Breaker breaker;
  breaker.Report(Verdict::kHung, kStart);
  EXPECT_FALSE(breaker.Allow(kStart));
  EXPECT_EQ(breaker.opened(), 1u);
}

TEST(BreakerTest, CallersThatGaveUpEarlySayNothing) {
  Breaker breaker;
  for (int i = 0; i < 100; ++i) breaker.Report(Verdict::kUnknown, kStart);
  EXPECT_TRUE(breaker.Allow(kStart));
}

TEST(BreakerTest, OneProbeGoesThroughWhenItsTimeIsOver) {
  Breaker breaker;
  breaker.Report(Verdict::kHung, kStart);
  const absl::Time later = kStart + limits::kBreakerOpenMin;
  EXPECT_TRUE(breaker.Allow(later));
  EXPECT_FALSE(breaker.Allow(later));
  EXPECT_FALSE(breaker.Allow(later + absl::Seconds(1)));
  breaker.Report(Verdict::kGood, later);
  EXPECT_TRUE(breaker.Allow(later));
  EXPECT_TRUE(breaker.Allow(later));
}

TEST(BreakerTest, AProbeThatNeverCameBackIsReplaced) {
  Breaker breaker;
  breaker.Report(Verdict::kHung, kStart);
  ASSERT_TRUE(breaker.Allow(kStart + limits::kBreakerOpenMin));
  EXPECT_TRUE(breaker.Allow(kStart + limits::kBreakerOpenMin + limits::kBreakerOpenMax));
}

TEST(BreakerTest, AProbeThatLearnedNothingHandsOverToTheNext) {
  Breaker breaker;
  breaker.Report(Verdict::kHung, kStart);
  const absl::Time later = kStart + limits::kBreakerOpenMin;
  ASSERT_TRUE(breaker.Allow(later));
  breaker.Report(Verdict::kUnknown, later);
  EXPECT_TRUE(breaker.Allow(later));
}

TEST(BreakerTest, StaysOpenTwiceAsLongEachTimeUpToTheMost) {
  Breaker breaker;
  absl::Time now = kStart;
  absl::Duration want = limits::kBreakerOpenMin;
  breaker.Report(Verdict::kHung, now);
  for (int i = 0; i < 12; ++i) {
    EXPECT_EQ(breaker.retry_at() - now, want);
    now = breaker.retry_at();
    ASSERT_TRUE(breaker.Allow(now));
    breaker.Report(Verdict::kBad, now);
    want = std::min(2 * want, limits::kBreakerOpenMax);
  }
  EXPECT_EQ(want, limits::kBreakerOpenMax);
}

TEST(BreakerTest, CallsUnderWayWhenItOpenedDoNotProlongIt) {
  Breaker breaker;
  breaker.Report(Verdict::kHung, kStart);
  const absl::Time retry_at = breaker.retry_at();
  for (int i = 0; i < 10; ++i) breaker.Report(Verdict::kHung, kStart + absl::Milliseconds(i));
  EXPECT_EQ(breaker.retry_at(), retry_at);
}

TEST(BackOffTest, DoublesWithinItsBoundsAndVaries) {
  EXPECT_EQ(BackOff(0, 7), absl::ZeroDuration());
  absl::Duration most = limits::kBackOffMin;
  for (int attempt = 1; attempt < 20; ++attempt) {
    for (uint64_t random : {uint64_t{0}, uint64_t{511}, uint64_t{1023}, ~uint64_t{0}}) {
      EXPECT_GE(BackOff(attempt, random), most / 2);
      EXPECT_LE(BackOff(attempt, random), most);
    }
    EXPECT_LT(BackOff(attempt, 0), BackOff(attempt, 1023));
    most = std::min(2 * most, limits::kBackOffMax);
  }
}

}  // namespace
}  // namespace reprise::client
