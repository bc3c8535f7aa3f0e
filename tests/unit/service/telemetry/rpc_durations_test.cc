#include "service/telemetry/rpc_durations.h"

#include <gtest/gtest.h>

#include <numeric>
#include <thread>

namespace reprise::telemetry {
namespace {

const std::vector<std::string> kMethods = {"p.S/Lookup", "p.S/Read"};

const HistogramSample* Find(const Family& family, const std::string& method,
                            const std::string& code) {
  for (const HistogramSample& sample : family.histograms) {
    if (sample.labels == Labels{{"method", method}, {"code", code}}) return &sample;
  }
  return nullptr;
}

uint64_t Calls(const HistogramSample& sample) {
  return std::accumulate(sample.counts.begin(), sample.counts.end(), uint64_t{0});
}

TEST(RpcDurations, EveryMethodIsThereAtZeroFromTheStart) {
  const Family family = RpcDurations(kMethods).ToFamily();
  ASSERT_EQ(family.histograms.size(), 3u);
  for (const char* method : {"p.S/Lookup", "p.S/Read", "other"}) {
    const HistogramSample* const sample = Find(family, method, "OK");
    ASSERT_NE(sample, nullptr) << method;
    EXPECT_EQ(Calls(*sample), 0u);
    EXPECT_EQ(sample->counts.size(), kRpcBounds.size() + 1);
  }
}

TEST(RpcDurations, ACallIsInTheBucketThatItsTimeIsWithin) {
  RpcDurations calls(kMethods);
  calls.Ended("p.S/Lookup", absl::StatusCode::kOk, absl::Microseconds(100));  // on the bound
  calls.Ended("p.S/Lookup", absl::StatusCode::kOk, absl::Microseconds(101));
  calls.Ended("p.S/Lookup", absl::StatusCode::kOk, absl::Hours(2));
  const Family family = calls.ToFamily();
  const HistogramSample& sample = *Find(family, "p.S/Lookup", "OK");
  EXPECT_EQ(sample.counts.front(), 1u);
  EXPECT_EQ(sample.counts[1], 1u);
  EXPECT_EQ(sample.counts.back(), 1u);
  EXPECT_DOUBLE_EQ(sample.sum, 7200.000201);
  EXPECT_EQ(Calls(*Find(family, "p.S/Read", "OK")), 0u);
}

TEST(RpcDurations, AnotherCodeAppearsOnceItWasAnswered) {
  RpcDurations calls(kMethods);
  EXPECT_EQ(Find(calls.ToFamily(), "p.S/Read", "NOT_FOUND"), nullptr);
  calls.Ended("p.S/Read", absl::StatusCode::kNotFound, absl::Seconds(1));
  EXPECT_EQ(Calls(*Find(calls.ToFamily(), "p.S/Read", "NOT_FOUND")), 1u);
  calls.Ended("p.S/Read", absl::StatusCode::kUnauthenticated, absl::Seconds(1));
  EXPECT_EQ(Calls(*Find(calls.ToFamily(), "p.S/Read", "UNAUTHENTICATED")), 1u);
}

TEST(RpcDurations, NoCallerAddsALabel) {
  RpcDurations calls(kMethods);
  const size_t before = calls.ToFamily().histograms.size();
  calls.Ended("evil/Method", absl::StatusCode::kOk, absl::Seconds(1));
  calls.Ended("", static_cast<absl::StatusCode>(999), absl::Seconds(-1));
  const Family family = calls.ToFamily();
  EXPECT_EQ(family.histograms.size(), before + 1);
  EXPECT_EQ(Calls(*Find(family, "other", "OK")), 1u);
  EXPECT_EQ(Calls(*Find(family, "other", "UNKNOWN")), 1u);
}

TEST(RpcDurations, CallsOfManyThreadsAreAllCounted) {
  RpcDurations calls(kMethods);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 1000; ++j) {
        calls.Ended("p.S/Read", absl::StatusCode::kOk, absl::Microseconds(j));
      }
    });
  }
  calls.ToFamily();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Calls(*Find(calls.ToFamily(), "p.S/Read", "OK")), 4000u);
}

}  // namespace
}  // namespace reprise::telemetry
