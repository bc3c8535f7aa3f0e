#include "service/shard/shard_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "absl/strings/match.h"
#include "service/telemetry/counters.h"
#include "tests/support/metric_values.h"

namespace reprise::shard {
namespace {

using telemetry::Family;
using telemetry::MetricType;
using testing::ValueOf;

std::set<std::string> SeriesOf(const std::vector<Family>& families) {
  std::set<std::string> series;
  for (const Family& family : families) {
    for (const telemetry::Sample& sample : family.samples) {
      std::string text = family.name;
      for (const auto& [label, value] : sample.labels) text += "," + label + "=" + value;
      EXPECT_TRUE(series.insert(text).second) << text << " is there twice";
    }
  }
  return series;
}

// As an engine describes itself that nobody has asked anything yet.
ShardSnapshot Fresh() {
  return {.id = "shard-0",
          .engine = {.counters = Counters().Snapshot(),
                     .sizing = {.points = {{.memory_bytes = 50, .of_capacity = 0.5},
                                           {.memory_bytes = 100, .of_capacity = 1}}}}};
}

TEST(ShardMetrics, ATierALaneOrAPeerMoreAddsNoSeries) {
  const std::set<std::string> fresh = SeriesOf(ToFamilies(Fresh()));
  ShardSnapshot full = Fresh();
  full.engine.tiers = {{.tier = Tier::kHbm, .capacity_bytes = 7}, {.tier = Tier::kDram}};
  full.lanes_offered = {LaneKind::kView, LaneKind::kNccl, LaneKind::kStream};
  full.peers = PeersUse{.known = 2};
  EXPECT_EQ(SeriesOf(ToFamilies(full)), fresh);
}

TEST(ShardMetrics, AFreshShardHasEverySeriesAtZero) {
  for (const Family& family : ToFamilies(Fresh())) {
    EXPECT_FALSE(family.samples.empty()) << family.name;
    for (const telemetry::Sample& sample : family.samples)
      EXPECT_EQ(sample.value, 0) << family.name;
  }
}

TEST(ShardMetrics, NamesFollowTheConventions) {
  std::set<std::string> names;
  for (const Family& family : ToFamilies(Fresh())) {
    EXPECT_TRUE(names.insert(family.name).second) << family.name << " is two families";
    EXPECT_TRUE(absl::StartsWith(family.name, "reprise_")) << family.name;
    EXPECT_EQ(absl::EndsWith(family.name, "_total"), family.type == MetricType::kCounter)
        << family.name;
    EXPECT_TRUE(absl::EndsWith(family.help, ".")) << family.name;
  }
}

// Each counter of the engine, moved alone, moves one series, and no two the same.
TEST(ShardMetrics, EveryCounterOfTheEngineIsScraped) {
  std::set<std::string> moved;
  for (size_t i = 0; i < static_cast<size_t>(Counter::kCount); ++i) {
    const auto counter = static_cast<Counter>(i);
    ShardSnapshot shard = Fresh();
    Counters counters;
    counters.Add(counter, 5);
    shard.engine.counters = counters.Snapshot();
    std::set<std::string> here;
    for (const Family& family : ToFamilies(shard)) {
      for (const telemetry::Sample& sample : family.samples) {
        if (sample.value == 0 || family.name == "reprise_queried_tokens_total") continue;
        EXPECT_EQ(sample.value, 5) << family.name;
        std::string text = family.name;
        for (const auto& [label, value] : sample.labels) text += "," + label + "=" + value;
        here.insert(text);
      }
    }
    ASSERT_EQ(here.size(), 1u) << CounterName(counter);
    EXPECT_TRUE(moved.insert(*here.begin()).second) << *here.begin();
  }
}

TEST(ShardMetrics, QueriedTokensAreHitsAndMisses) {
  Counters counters;
  counters.Add(Counter::kHitTokens, 96);
  counters.Add(Counter::kMissTokens, 32);
  ShardSnapshot shard = Fresh();
  shard.engine.counters = counters.Snapshot();
  const auto families = ToFamilies(shard);
  EXPECT_EQ(ValueOf(families, "reprise_hit_tokens_total"), 96);
  EXPECT_EQ(ValueOf(families, "reprise_queried_tokens_total"), 128);
}

TEST(ShardMetrics, WhatOtherAmountsOfMemoryWouldHaveFoundIsBySize) {
  ShardSnapshot shard = Fresh();
  shard.engine.sizing.points[0].hit_tokens = 32;
  shard.engine.sizing.points[1].hit_tokens = 96;
  const auto families = ToFamilies(shard);
  EXPECT_EQ(ValueOf(families, "reprise_sizing_hit_tokens", {{"memory", "0.5"}}), 32);
  EXPECT_EQ(ValueOf(families, "reprise_sizing_hit_tokens", {{"memory", "1"}}), 96);
}

TEST(ShardMetrics, WhatClaimsKeepStandsBesideWhatTheyMayKeep) {
  ShardSnapshot shard = Fresh();
  shard.engine.claims = {.claims = 3,
                         .claimed_bytes = 40,
                         .claimed_bytes_max = 50,
                         .pinned_bytes = 10,
                         .pinned_bytes_max = 25};
  const auto families = ToFamilies(shard);
  EXPECT_EQ(ValueOf(families, "reprise_claims"), 3);
  EXPECT_EQ(ValueOf(families, "reprise_claimed_bytes", {{"claims", "all"}}), 40);
  EXPECT_EQ(ValueOf(families, "reprise_claimed_bytes", {{"claims", "pins"}}), 10);
  EXPECT_EQ(ValueOf(families, "reprise_claimed_bytes_max", {{"claims", "all"}}), 50);
  EXPECT_EQ(ValueOf(families, "reprise_claimed_bytes_max", {{"claims", "pins"}}), 25);
}

TEST(ShardMetrics, ADiskIsKeptUntilItIsSaidWhyNot) {
  ShardSnapshot shard = Fresh();
  EXPECT_EQ(ValueOf(ToFamilies(shard), "reprise_disk_kept"), 0);
  shard.engine.kept_disk = KeptDiskUse{.restored_blocks = 7, .waiting_blocks = 3};
  EXPECT_EQ(ValueOf(ToFamilies(shard), "reprise_disk_kept"), 1);
  EXPECT_EQ(ValueOf(ToFamilies(shard), "reprise_disk_waiting_blocks"), 3);
  shard.engine.kept_disk->why_not_kept = "the disk is lost";
  EXPECT_EQ(ValueOf(ToFamilies(shard), "reprise_disk_kept"), 0);
}

TEST(ShardMetrics, EachLaneHasItsOwnBlocksAndBytesEachWay) {
  ShardSnapshot shard = Fresh();
  shard.stream = {1, 10, 2, 20};
  shard.lanes.view = {3, 30, 4, 40};
  shard.lanes.nccl = {5, 50, 6, 60};
  shard.lanes.tcp = {7, 70, 8, 80};
  shard.lanes_offered = {LaneKind::kView, LaneKind::kStream};
  const auto families = ToFamilies(shard);
  const std::map<std::string, std::vector<double>> expected = {{"stream", {1, 10, 2, 20, 1}},
                                                               {"view", {3, 30, 4, 40, 1}},
                                                               {"nccl", {5, 50, 6, 60, 0}},
                                                               {"tcp", {7, 70, 8, 80, 0}}};
  for (const auto& [lane, values] : expected) {
    const auto at = [&families, lane = lane](const char* name, const char* direction) {
      return ValueOf(families, name, {{"lane", lane}, {"direction", direction}});
    };
    EXPECT_EQ(at("reprise_lane_blocks_total", "read"), values[0]) << lane;
    EXPECT_EQ(at("reprise_lane_bytes_total", "read"), values[1]) << lane;
    EXPECT_EQ(at("reprise_lane_blocks_total", "write"), values[2]) << lane;
    EXPECT_EQ(at("reprise_lane_bytes_total", "write"), values[3]) << lane;
    EXPECT_EQ(ValueOf(families, "reprise_lane_offered", {{"lane", lane}}), values[4]) << lane;
  }
}

TEST(ShardMetrics, TiersPeersAndPresenceAreWhatTheSnapshotSays) {
  ShardSnapshot shard = Fresh();
  shard.draining = true;
  shard.refused_overload = 11;
  shard.engine.tiers = {
      {.tier = Tier::kDram, .capacity_bytes = 100, .used_bytes = 40, .blocks = 4}};
  shard.engine.blocks = 4;
  shard.engine.leases = 5;
  shard.engine.reservations = 6;
  shard.engine.attachments = 7;
  shard.engine.watchers = 8;
  shard.lanes.tcp_connections = 12;
  shard.lanes.tcp_verbs = 13;
  shard.lanes.nccl_links_served = 1;
  shard.lanes.nccl_links_made = 2;
  shard.lanes.nccl_link_failures = 3;
  shard.peers = PeersUse{.known = 2,
                         .replication = {.chains_done = 21, .chains_dropped = 22},
                         .pulls = {.pulls = 31, .pulls_failed = 32, .blocks = 33, .bytes = 34},
                         .drain = {.chains = 41, .chains_safe = 42, .blocks_copied = 43},
                         .failures = 51,
                         .bytes_per_second = 61};
  const auto families = ToFamilies(shard);
  EXPECT_EQ(ValueOf(families, "reprise_draining"), 1);
  EXPECT_EQ(ValueOf(families, "reprise_refused_total", {{"reason", "overload"}}), 11);
  EXPECT_EQ(ValueOf(families, "reprise_tier_capacity_bytes", {{"tier", "dram"}}), 100);
  EXPECT_EQ(ValueOf(families, "reprise_tier_used_bytes", {{"tier", "dram"}}), 40);
  EXPECT_EQ(ValueOf(families, "reprise_tier_blocks", {{"tier", "dram"}}), 4);
  EXPECT_EQ(ValueOf(families, "reprise_tier_capacity_bytes", {{"tier", "hbm"}}), 0);
  EXPECT_EQ(ValueOf(families, "reprise_blocks"), 4);
  EXPECT_EQ(ValueOf(families, "reprise_leases"), 5);
  EXPECT_EQ(ValueOf(families, "reprise_reservations"), 6);
  EXPECT_EQ(ValueOf(families, "reprise_attachments"), 7);
  EXPECT_EQ(ValueOf(families, "reprise_watchers"), 8);
  EXPECT_EQ(ValueOf(families, "reprise_tcp_connections"), 12);
  EXPECT_EQ(ValueOf(families, "reprise_tcp_verbs_total"), 13);
  EXPECT_EQ(ValueOf(families, "reprise_nccl_links", {{"side", "served"}}), 1);
  EXPECT_EQ(ValueOf(families, "reprise_nccl_links", {{"side", "made"}}), 2);
  EXPECT_EQ(ValueOf(families, "reprise_nccl_link_failures_total"), 3);
  EXPECT_EQ(ValueOf(families, "reprise_peers"), 2);
  EXPECT_EQ(ValueOf(families, "reprise_replication_chains_total", {{"outcome", "done"}}), 21);
  EXPECT_EQ(ValueOf(families, "reprise_replication_chains_total", {{"outcome", "dropped"}}), 22);
  EXPECT_EQ(ValueOf(families, "reprise_pulls_total"), 31);
  EXPECT_EQ(ValueOf(families, "reprise_pulls_failed_total"), 32);
  EXPECT_EQ(ValueOf(families, "reprise_drain_safe_chains"), 42);
  EXPECT_EQ(ValueOf(families, "reprise_peer_failures_total"), 51);
}

TEST(ShardMetrics, ThePageSaysWhatThisIs) {
  ShardSnapshot shard = Fresh();
  shard.address = "127.0.0.1:7001";
  shard.engine.tiers = {{.tier = Tier::kDram, .capacity_bytes = 2 << 20, .used_bytes = 1 << 20}};
  shard.lanes_absent = {{LaneKind::kNccl, "this shard keeps no blocks in GPU memory"}};
  const std::string html = telemetry::ToHtml(ToPage(shard));
  for (const char* text : {"shard shard-0", "127.0.0.1:7001", "50 %", "keeps no blocks in GPU",
                           "this one is alone", "href=\"/metrics\""}) {
    EXPECT_THAT(html, ::testing::HasSubstr(text));
  }
}

}  // namespace
}  // namespace reprise::shard
