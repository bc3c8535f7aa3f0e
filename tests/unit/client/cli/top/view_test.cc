#include "client/cli/top/view.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/client/cli/top/samples.h"

namespace reprise::cli {
namespace {

using testing::AddTier;
using testing::At;
using ::testing::ElementsAre;
using testing::RowOf;
using testing::Sample;
using testing::Shard;
using testing::Silent;

TopView View(const TopSample& before, const TopSample& now, TopOrder order = TopOrder::kName) {
  return MakeTopView(&before, now, order);
}

std::vector<std::string> Names(const TopView& view) {
  std::vector<std::string> names;
  for (const TopRow& row : view.rows) names.push_back(row.id);
  return names;
}

TEST(TopViewTest, ARateIsWhatWasCountedOverTheTimeBetweenTheTwoAnswers) {
  const TopSample before = Sample(
      0, {Shard("a", 0, {{"hit_blocks_total", 100}, {"miss_blocks_total", 50}}), Shard("b", 0)});
  // "a" answered late: its rates are of 4 seconds and not of the 5 between the looks.
  const TopSample now =
      Sample(5, {Shard("a", 4, {{"hit_blocks_total", 130}, {"miss_blocks_total", 60}}),
                 Shard("b", 5, {{"miss_blocks_total", 10}})});
  const TopView view = View(before, now);
  const Rates a = *RowOf(view, "a").rates;
  EXPECT_EQ(a.elapsed, absl::Seconds(4));
  EXPECT_EQ(a.Counted(Rate::kAskedBlocks), 40u);
  EXPECT_EQ(a.Counted(Rate::kHitBlocks), 30u);
  EXPECT_DOUBLE_EQ(a.PerSecond(Rate::kAskedBlocks), 10);
  EXPECT_DOUBLE_EQ(a.PerSecond(Rate::kHitBlocks), 7.5);
  EXPECT_DOUBLE_EQ(*a.HitShare(), 0.75);
  EXPECT_DOUBLE_EQ(view.total.rates->PerSecond(Rate::kAskedBlocks), 10 + 2);
  EXPECT_DOUBLE_EQ(*view.total.rates->HitShare(), 0.6) << "of all blocks, not of the shares";
  EXPECT_EQ(view.total.rates->elapsed, absl::Seconds(5));
}

TEST(TopViewTest, TheFirstLookHasNoRates) {
  const TopView view =
      MakeTopView(nullptr, Sample(0, {Shard("a", 0, {{"hit_blocks_total", 7}})}), TopOrder::kName);
  EXPECT_FALSE(view.rows[0].rates.has_value());
  EXPECT_FALSE(view.total.rates.has_value());
  EXPECT_EQ(view.rows[0].note, "") << "nobody knows that it is new";
  EXPECT_EQ(view.elapsed, absl::ZeroDuration());
}

TEST(TopViewTest, ARestartedShardHasNoNegativeRate) {
  const TopSample before = Sample(0, {Shard("a", 0, {{"hit_blocks_total", 100}}), Shard("b", 0)});
  const TopSample now =
      Sample(1, {Shard("a", 1, {{"hit_blocks_total", 99}}), Shard("b", 1, {{"pulls_total", 1}})});
  const TopView view = View(before, now);
  EXPECT_EQ(RowOf(view, "a").note, "restarted");
  EXPECT_FALSE(RowOf(view, "a").rates.has_value());
  EXPECT_TRUE(RowOf(view, "b").rates.has_value());
  EXPECT_EQ(view.total.rates->Counted(Rate::kHitBlocks), 0u);
  EXPECT_EQ(view.rated_shards, 1u);
}

TEST(TopViewTest, AShardThatRestartedAndCountedMoreThanBeforeIsNotTakenForTheOldOne) {
  const TopSample before = Sample(0, {Shard("a", 0, {{"hit_blocks_total", 100}})});
  TopSample now = Sample(1, {Shard("a", 1, {{"hit_blocks_total", 150}})});
  now.shards[0].report.description.set_incarnation(2);
  const TopView view = View(before, now);
  EXPECT_EQ(view.rows[0].note, "restarted");
  EXPECT_FALSE(view.rows[0].rates.has_value());
}

TEST(TopViewTest, AShardThatDoesNotAnswerSaysWhyAndTheOthersGoOn) {
  const TopSample before = Sample(0, {Shard("a", 0), Shard("b", 0)});
  const TopSample now = Sample(1, {Silent("a", 1), Shard("b", 1, {{"hit_blocks_total", 5}})});
  const TopView view = View(before, now);
  EXPECT_EQ(RowOf(view, "a").state, "silent");
  EXPECT_FALSE(RowOf(view, "a").answered);
  EXPECT_EQ(RowOf(view, "a").note, "failed to connect: a: Connection refused");
  EXPECT_EQ(RowOf(view, "b").rates->Counted(Rate::kHitBlocks), 5u);
  EXPECT_EQ(view.states.at("silent"), 1u);
  EXPECT_EQ(view.states.at("alive"), 1u);
}

TEST(TopViewTest, WhatAShardCountsWhileItIsSilentIsInTheNextViewAndInNoOther) {
  TopSample baseline = Sample(0, {Shard("a", 0, {{"hit_blocks_total", 10}})});
  uint64_t counted = 0;
  const auto look = [&](TopSample now) {
    const TopView view = View(baseline, now);
    if (view.rows[0].rates.has_value()) counted += view.rows[0].rates->Counted(Rate::kHitBlocks);
    baseline = Baseline(baseline, std::move(now));
    return view;
  };
  look(Sample(1, {Shard("a", 1, {{"hit_blocks_total", 14}})}));
  look(Sample(2, {Silent("a", 2)}));
  look(Sample(3, {Silent("a", 3)}));
  const TopView back = look(Sample(5, {Shard("a", 5, {{"hit_blocks_total", 22}})}));
  EXPECT_EQ(back.rows[0].note, "");
  EXPECT_EQ(back.rows[0].rates->elapsed, absl::Seconds(4)) << "since it last answered";
  EXPECT_DOUBLE_EQ(back.rows[0].rates->PerSecond(Rate::kHitBlocks), 2);
  look(Sample(6, {Shard("a", 6, {{"hit_blocks_total", 23}})}));
  EXPECT_EQ(counted, 23u - 10u);
}

TEST(TopViewTest, AShardThatIsNewOrGoneIsToldOnce) {
  TopSample baseline = Sample(0, {Shard("a", 0), Shard("old", 0)});
  TopSample now = Sample(1, {Shard("a", 1), Shard("fresh", 1, {{"hit_blocks_total", 5}})});
  TopView view = View(baseline, now);
  EXPECT_EQ(RowOf(view, "fresh").note, "new");
  EXPECT_FALSE(RowOf(view, "fresh").rates.has_value());
  EXPECT_EQ(RowOf(view, "old").state, "gone");
  EXPECT_FALSE(RowOf(view, "old").answered);
  EXPECT_EQ(RowOf(view, "a").note, "");

  baseline = Baseline(baseline, now);
  view = View(baseline, Sample(2, {Shard("a", 2), Shard("fresh", 2, {{"hit_blocks_total", 6}})}));
  EXPECT_THAT(Names(view), ElementsAre("a", "fresh"));
  EXPECT_EQ(RowOf(view, "fresh").note, "");
  EXPECT_EQ(RowOf(view, "fresh").rates->Counted(Rate::kHitBlocks), 1u);
}

TEST(TopViewTest, ShardsOfOneNameAtTwoAddressesAreTwoShards) {
  TopSample before = Sample(
      0, {Shard("a", 0, {{"hit_blocks_total", 1}}), Shard("a", 0, {{"hit_blocks_total", 1000}})});
  before.shards[1].report.address = "elsewhere:7";
  TopSample now = Sample(
      1, {Shard("a", 1, {{"hit_blocks_total", 3}}), Shard("a", 1, {{"hit_blocks_total", 1005}})});
  now.shards[1].report.address = "elsewhere:7";
  const TopView view = View(before, now);
  EXPECT_EQ(view.rows[0].rates->Counted(Rate::kHitBlocks), 2u);
  EXPECT_EQ(view.rows[1].rates->Counted(Rate::kHitBlocks), 5u);
}

TEST(TopViewTest, AShardThatCameBackAtAnotherAddressIsNoNewOne) {
  const TopSample before = Sample(0, {Shard("a", 0)});
  TopSample now = Sample(1, {Shard("a", 1)});
  now.shards[0].report.address = "elsewhere:7";
  now.shards[0].report.description.set_incarnation(2);
  const TopView view = View(before, now);
  EXPECT_THAT(Names(view), ElementsAre("a"));
  EXPECT_EQ(view.rows[0].note, "restarted");
}

TEST(TopViewTest, AShardThatWasNamedAndNeverAnsweredHasRatesOnceItDid) {
  TopSample baseline = Sample(0, {Silent("", 0)});
  TopSample now = Sample(1, {Shard("a", 1, {{"hit_blocks_total", 5}})});
  now.shards[0].report.address = baseline.shards[0].report.address;
  TopView view = View(baseline, now);
  EXPECT_THAT(Names(view), ElementsAre("a"));
  EXPECT_EQ(view.rows[0].note, "") << "it was named before";
  EXPECT_FALSE(view.rows[0].rates.has_value());
  baseline = Baseline(baseline, now);
  now = Sample(2, {Shard("a", 2, {{"hit_blocks_total", 9}})});
  now.shards[0].report.address = baseline.shards[0].report.address;
  EXPECT_EQ(View(baseline, now).rows[0].rates->Counted(Rate::kHitBlocks), 4u);
}

TEST(TopViewTest, AShardKnowsFirstThatItDrains) {
  TopSample now = Sample(1, {Shard("a", 1)});
  now.shards[0].report.description.set_draining(true);
  EXPECT_EQ(MakeTopView(nullptr, now, TopOrder::kName).rows[0].state, "draining");
}

TEST(TopViewTest, WhatASilentRouterSaidOfAShardIsNoNews) {
  TopSample now = Sample(1, {Shard("a", 1), Silent("b", 1)});
  now.shards[0].report.state = "syncing";
  now.shards[1].report.state = "dead";
  TopView view = MakeTopView(nullptr, now, TopOrder::kName);
  EXPECT_EQ(RowOf(view, "a").state, "syncing");
  EXPECT_EQ(RowOf(view, "b").state, "dead");
  now.router_status = absl::UnavailableError("gone");
  now.router_at = At(-5);
  view = MakeTopView(nullptr, now, TopOrder::kName);
  EXPECT_EQ(RowOf(view, "a").state, "alive");
  EXPECT_EQ(RowOf(view, "b").state, "silent");
  EXPECT_EQ(view.router_age, absl::Seconds(6));
  EXPECT_EQ(view.epoch, 42u) << "what is known stays";
}

TEST(TopViewTest, EvictionsRefusalsAndErrorsAreOfEveryCause) {
  const TopSample before = Sample(0, {Shard("a", 0)});
  const TopSample now = Sample(1, {Shard("a", 1,
                                         {{"evicted_watermark_blocks_total", 1},
                                          {"evicted_own_space_blocks_total", 10},
                                          {"evicted_reclaim_blocks_total", 100},
                                          {"evicted_quota_blocks_total", 1000},
                                          {"evicted_claimed_blocks_total", 7},
                                          {"demoted_blocks_total", 3},
                                          {"refused_no_space_total", 1},
                                          {"refused_overload", 10},
                                          {"refused_of_a_later_version_total", 100},
                                          {"corrupt_blocks_total", 1},
                                          {"quarantined_blocks_total", 10},
                                          {"lost_blocks_total", 100},
                                          {"peer_failures_total", 1000},
                                          {"pulls_failed_total", 10'000},
                                          {"nccl_link_failures_total", 100'000}})});
  const Rates rates = *View(before, now).rows[0].rates;
  EXPECT_EQ(rates.Counted(Rate::kEvictedBlocks), 1111u) << "the claimed ones are of them";
  EXPECT_EQ(rates.Counted(Rate::kDemotedBlocks), 3u);
  EXPECT_EQ(rates.Counted(Rate::kRefusals), 111u);
  EXPECT_EQ(rates.Counted(Rate::kErrors), 111'111u);
}

TEST(TopViewTest, BytesAreThoseOfAllLanesAndOfEach) {
  const TopSample before = Sample(0, {Shard("a", 0)});
  const TopSample now = Sample(2, {Shard("a", 2,
                                         {{"lane_view_bytes_read_total", 1},
                                          {"lane_nccl_bytes_read_total", 10},
                                          {"lane_stream_bytes_read_total", 100},
                                          {"lane_tcp_bytes_read_total", 1000},
                                          {"lane_view_bytes_written_total", 2},
                                          {"lane_nccl_bytes_written_total", 20},
                                          {"lane_stream_bytes_written_total", 200},
                                          {"lane_tcp_bytes_written_total", 2000}})});
  const Rates rates = *View(before, now).rows[0].rates;
  EXPECT_EQ(rates.Counted(Rate::kOutBytes), 1111u);
  EXPECT_EQ(rates.Counted(Rate::kInBytes), 2222u);
  EXPECT_EQ(rates.Counted(Rate::kOutViewBytes), 1u);
  EXPECT_EQ(rates.Counted(Rate::kOutNcclBytes), 10u);
  EXPECT_EQ(rates.Counted(Rate::kOutStreamBytes), 100u);
  EXPECT_EQ(rates.Counted(Rate::kOutTcpBytes), 1000u);
  EXPECT_EQ(rates.Counted(Rate::kInTcpBytes), 2000u);
  EXPECT_EQ(rates.Counted(Rate::kInViewBytes), 2u);
  EXPECT_EQ(rates.Counted(Rate::kInNcclBytes), 20u);
  EXPECT_EQ(rates.Counted(Rate::kInStreamBytes), 200u);
  EXPECT_DOUBLE_EQ(rates.PerSecond(Rate::kInBytes), 1111);
}

TEST(TopViewTest, TheTotalIsTheSumOfThoseThatAnswer) {
  TopShard a = Shard("a", 1), b = Shard("b", 1);
  AddTier(a, v1::TIER_DRAM, 10, 100);
  AddTier(a, v1::TIER_NVME, 1, 1000);
  AddTier(b, v1::TIER_DRAM, 50, 200);
  a.report.description.set_blocks(7);
  b.report.description.set_blocks(5);
  b.report.description.set_leases(2);
  b.report.description.set_attachments(3);
  const TopView view = MakeTopView(nullptr, Sample(1, {a, b, Silent("c", 1)}), TopOrder::kName);
  EXPECT_EQ(view.total.tiers.at(v1::TIER_DRAM).used_bytes, 60u);
  EXPECT_EQ(view.total.tiers.at(v1::TIER_DRAM).capacity_bytes, 300u);
  EXPECT_EQ(view.total.tiers.at(v1::TIER_NVME).capacity_bytes, 1000u);
  EXPECT_EQ(view.total.blocks, 12u);
  EXPECT_EQ(view.total.leases, 2u);
  EXPECT_EQ(view.total.attachments, 3u);
}

TEST(TopViewTest, TheShareOfNothingIsNotKnown) {
  const TopView view = View(Sample(0, {Shard("a", 0)}), Sample(1, {Shard("a", 1)}));
  EXPECT_EQ(view.rows[0].rates->HitShare(), std::nullopt);
}

TEST(TopViewTest, ShardsStandInTheOrderThatWasAskedFor) {
  TopShard most_memory = Shard("shard-10", 1, {{"hit_blocks_total", 1}});
  AddTier(most_memory, v1::TIER_DRAM, 90, 100);
  TopShard most_hits = Shard("shard-2", 1, {{"hit_blocks_total", 9}});
  AddTier(most_hits, v1::TIER_DRAM, 10, 1000);
  const TopShard most_bytes = Shard(
      "shard-1", 1, {{"lane_view_bytes_read_total", 5}, {"lane_stream_bytes_written_total", 5}});
  const TopSample before =
      Sample(0, {Shard("shard-10", 0), Shard("shard-2", 0), Shard("shard-1", 0)});
  const TopSample now = Sample(1, {most_memory, most_hits, most_bytes});
  EXPECT_THAT(Names(View(before, now, TopOrder::kName)),
              ElementsAre("shard-1", "shard-2", "shard-10"));
  EXPECT_THAT(Names(View(before, now, TopOrder::kMemory)),
              ElementsAre("shard-10", "shard-2", "shard-1"));
  EXPECT_THAT(Names(View(before, now, TopOrder::kHits)),
              ElementsAre("shard-2", "shard-10", "shard-1"));
  EXPECT_THAT(Names(View(before, now, TopOrder::kBytes)),
              ElementsAre("shard-1", "shard-2", "shard-10"));
}

}  // namespace
}  // namespace reprise::cli
