#include "service/router/router_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "tests/support/metric_values.h"

namespace reprise::router {
namespace {

using cluster::ShardState;
using telemetry::Family;
using telemetry::MetricType;
using testing::ValueOf;

TEST(RouterMetrics, AFreshRouterHasEveryFamilyAtZero) {
  for (const Family& family : ToFamilies({})) {
    EXPECT_TRUE(absl::StartsWith(family.name, "reprise_")) << family.name;
    EXPECT_EQ(absl::EndsWith(family.name, "_total"), family.type == MetricType::kCounter)
        << family.name;
    for (const telemetry::Sample& sample : family.samples)
      EXPECT_EQ(sample.value, 0) << family.name;
  }
}

TEST(RouterMetrics, ShardsAreCountedByStateAndNamedOneByOne) {
  RouterSnapshot router;
  router.engine.epoch = Epoch(9);
  router.engine.shards = {
      {.shard = {{"a"}, "h:1"}, .state = ShardState::kAlive, .blocks = 7, .resyncs = 2},
      {.shard = {{"b"}, "h:2"}, .state = ShardState::kAlive, .age = absl::Milliseconds(1500)},
      {.shard = {{"c\"\n"}, "h:3"}, .state = ShardState::kDead, .age = absl::InfiniteDuration()}};
  const auto families = ToFamilies(router);
  EXPECT_EQ(ValueOf(families, "reprise_topology_epoch"), 9);
  EXPECT_EQ(ValueOf(families, "reprise_shards", {{"state", "alive"}}), 2);
  EXPECT_EQ(ValueOf(families, "reprise_shards", {{"state", "dead"}}), 1);
  EXPECT_EQ(ValueOf(families, "reprise_shards", {{"state", "syncing"}}), 0);
  EXPECT_EQ(ValueOf(families, "reprise_shard_index_blocks", {{"shard", "a"}}), 7);
  EXPECT_EQ(ValueOf(families, "reprise_shard_resyncs_total", {{"shard", "a"}}), 2);
  EXPECT_EQ(ValueOf(families, "reprise_shard_silence_seconds", {{"shard", "b"}}), 1.5);
  const std::string text = telemetry::ToText(families);
  EXPECT_THAT(text,
              ::testing::HasSubstr("reprise_shard_silence_seconds{shard=\"c\\\"\\n\"} +Inf\n"));
  EXPECT_THAT(telemetry::ToHtml(ToPage(router)), ::testing::HasSubstr("never"));
}

TEST(RouterMetrics, EachOutcomeIsItsOwn) {
  RouterSnapshot router;
  router.engine.counters = {.located = 1,
                            .located_nothing = 2,
                            .routed_to_blocks = 3,
                            .routed_past_blocks = 4,
                            .routed_nothing = 5,
                            .routed_nowhere = 6,
                            .feed_gaps = 7};
  const auto families = ToFamilies(router);
  EXPECT_EQ(ValueOf(families, "reprise_locates_total", {{"outcome", "found"}}), 1);
  EXPECT_EQ(ValueOf(families, "reprise_locates_total", {{"outcome", "nothing"}}), 2);
  EXPECT_EQ(ValueOf(families, "reprise_route_sessions_total", {{"outcome", "at_home"}}), 3);
  EXPECT_EQ(ValueOf(families, "reprise_route_sessions_total", {{"outcome", "elsewhere"}}), 4);
  EXPECT_EQ(ValueOf(families, "reprise_route_sessions_total", {{"outcome", "nothing"}}), 5);
  EXPECT_EQ(ValueOf(families, "reprise_route_sessions_total", {{"outcome", "no_shard"}}), 6);
  EXPECT_EQ(ValueOf(families, "reprise_feed_gaps_total"), 7);
}

}  // namespace
}  // namespace reprise::router
