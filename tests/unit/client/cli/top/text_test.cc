#include "client/cli/top/text.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/cli/top/json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/unit/client/cli/top/samples.h"

namespace reprise::cli {
namespace {

using testing::AddTier;
using testing::At;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::Sample;
using testing::Shard;
using testing::Silent;

// As a terminal counts: colours take no room, a character of several bytes takes one column.
size_t ColumnsOf(const std::string& line) {
  size_t columns = 0;
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '\x1b') {
      i = line.find('m', i);
    } else if ((static_cast<unsigned char>(line[i]) & 0xc0) != 0x80) {
      ++columns;
    }
  }
  return columns;
}

std::vector<std::string> LinesOf(const std::string& text) {
  std::vector<std::string> lines = absl::StrSplit(text, '\n');
  EXPECT_EQ(lines.back(), "") << "each line has its end";
  lines.pop_back();
  return lines;
}

TopShard Busy(const std::string& id, double at, uint64_t times) {
  TopShard shard = Shard(id, at,
                         {{"hit_blocks_total", 90 * times},
                          {"miss_blocks_total", 10 * times},
                          {"hit_tokens_total", 1440 * times},
                          {"lane_view_bytes_read_total", times << 30},
                          {"refused_overload", times},
                          {"corrupt_blocks_total", times}});
  AddTier(shard, v1::TIER_HBM, 62, 100);
  AddTier(shard, v1::TIER_DRAM, 95ull << 20, 100ull << 20);
  shard.report.description.add_lanes(v1::LANE_KIND_VIEW);
  shard.report.description.add_lanes(v1::LANE_KIND_STREAM);
  shard.report.description.set_blocks(123'456);
  return shard;
}

TopView BusyView() {
  const TopSample before = Sample(0, {Busy("shard-1", 0, 1), Busy("shard-2", 0, 1)});
  TopSample now = Sample(2, {Busy("shard-1", 2, 3), Busy("shard-2", 2, 1), Silent("shard-3", 2)});
  now.router_status = absl::DeadlineExceededError("no answer within 2s");
  now.router_at = At(-7);
  now.router_description.mutable_membership()->set_trouble("members.yaml: no such file");
  now.router_description.mutable_membership()->set_trouble_ms(65'000);
  return MakeTopView(&before, now, TopOrder::kName);
}

TEST(TopTextTest, NoLineIsWiderThanTheWindow) {
  const TopView view = BusyView();
  for (size_t width = 1; width < 240; ++width) {
    for (const bool pretty : {false, true}) {
      const std::string text = TopText(view, {.width = width, .bars = pretty, .colours = pretty});
      for (const std::string& line : LinesOf(text))
        EXPECT_LE(ColumnsOf(line), width) << line << "|";
    }
  }
}

TEST(TopTextTest, TheColumnsThatMatterLeastAreLeftOutFirst) {
  const TopView view = BusyView();
  const std::string all = TopText(view, {});
  for (const char* head :
       {"HBM", "DRAM", "BYTES", "BLOCKS", "LEASES", "CLIENTS", "ASKED/S", "HIT", "IN/S", "OUT/S",
        "VIEW OUT/S", "STREAM IN/S", "EVICT/S", "DEMOTE/S", "REFUSE/S", "ERR/S"}) {
    EXPECT_THAT(all, HasSubstr(head));
  }
  EXPECT_THAT(all, Not(HasSubstr("NCCL"))) << "no shard offers it";
  const std::string usual = TopText(view, {.width = 80});
  for (const char* head : {"HBM", "DRAM", "ASKED/S", "HIT", "IN/S", "OUT/S", "EVICT/S", "ERR/S"})
    EXPECT_THAT(usual, HasSubstr(head));
  EXPECT_THAT(usual, Not(HasSubstr("VIEW OUT/S")));
  const std::string half = TopText(view, {.width = 44});
  for (const char* head : {"HBM", "DRAM", "HIT", "OUT/S"}) EXPECT_THAT(half, HasSubstr(head));
  EXPECT_THAT(half, Not(HasSubstr("ASKED/S"))) << "not simply what stands first";
  const std::string narrow = TopText(view, {.width = 20});
  EXPECT_THAT(narrow, HasSubstr("SHARD"));
  EXPECT_THAT(narrow, HasSubstr("STATE"));
  EXPECT_THAT(narrow, Not(HasSubstr("ASKED/S")));
}

TEST(TopTextTest, EachNumberStandsUnderItsHead) {
  const TopView view = BusyView();
  const std::vector<std::string> lines = LinesOf(TopText(view, {}));
  const size_t head = lines.size() - 5;
  ASSERT_THAT(lines[head], HasSubstr("SHARD"));
  const auto under = [&](const std::string& name, size_t row) {
    const size_t end = lines[head].find(name) + name.size();
    const std::string& line = lines[head + 1 + row];
    const size_t space = line.rfind(' ', end - 1);
    return line.substr(space + 1, end - space - 1);
  };
  EXPECT_EQ(under("ASKED/S", 0), "100");
  EXPECT_EQ(under("HIT/S", 0), "90");
  EXPECT_EQ(under("HIT/S   HIT", 0), "90%");
  EXPECT_EQ(under("  OUT/S", 0), "1.0G");
  EXPECT_EQ(under("VIEW OUT/S", 0), "1.0G");
  EXPECT_EQ(under("  IN/S", 0), "0");
  EXPECT_EQ(under("DRAM", 0), "95%");
  EXPECT_EQ(under("HBM", 0), "62%");
  EXPECT_EQ(under("BLOCKS", 0), "123456");
  EXPECT_EQ(under("REFUSE/S", 0), "1.0");
  EXPECT_EQ(under("ASKED/S", 1), "0");
  EXPECT_EQ(under("BLOCKS", 3), "246912");
  EXPECT_THAT(lines[head + 3], HasSubstr("silent     Connection refused")) << "across the columns";
  EXPECT_TRUE(absl::StartsWith(lines[head + 4], "total "));
}

TEST(TopTextTest, WhatIsNotKnownYetIsADash) {
  const TopView view = MakeTopView(nullptr, Sample(0, {Busy("shard-1", 0, 5)}), TopOrder::kName);
  const std::vector<std::string> lines = LinesOf(TopText(view, {.width = 80}));
  EXPECT_THAT(lines[1], HasSubstr("first look"));
  EXPECT_THAT(lines[3], HasSubstr(" -  "));
  EXPECT_THAT(lines[3], Not(HasSubstr(" 0 "))) << "nothing counted is not the same as not known";
}

TEST(TopTextTest, ARouterThatIsSilentIsToldWithItsAgeAndWhy) {
  const std::string text = TopText(BusyView(), {});
  EXPECT_THAT(text, HasSubstr("the router has not answered for 9 s  no answer within 2s"));
  EXPECT_THAT(text, HasSubstr("the members have not been read for 1 min 5 s"));
  EXPECT_THAT(text, HasSubstr("epoch 42")) << "what is known stays";
  EXPECT_THAT(text, HasSubstr("3 shards: 2 alive, 1 silent"));
  EXPECT_THAT(text, HasSubstr("last 2.0 s  asked 200 blocks, hit 180 (90%) = 2880 tokens"));
}

TEST(TopTextTest, ThereAreNoMoreLinesThanTheWindowHas) {
  std::vector<TopShard> shards;
  for (int i = 0; i < 50; ++i) shards.push_back(Busy(absl::StrCat("shard-", i), 0, 1));
  const TopView view = MakeTopView(nullptr, Sample(0, shards), TopOrder::kName);
  for (size_t height = 1; height < 60; ++height) {
    const std::vector<std::string> lines = LinesOf(TopText(view, {.width = 80, .height = height}));
    EXPECT_LE(lines.size(), height);
    if (height < 6) continue;
    EXPECT_TRUE(absl::StartsWith(lines.back(), "total")) << height;
    const size_t shown = std::min<size_t>(50, height - 4 - (height < 54 ? 1 : 0));
    EXPECT_EQ(absl::StrContains(lines[lines.size() - 2], absl::StrCat("... ", 50 - shown, " more")),
              shown < 50)
        << height;
  }
}

TEST(TopTextTest, WhatAServerSaysCannotMoveTheCursor) {
  TopSample now = Sample(0, {Shard("a\x1b[2J\nb\xff", 0), Silent("c", 0, "x: \x1b]0;title\x07")});
  now.router_description.mutable_membership()->set_trouble("\x1b[H\r");
  const std::string text = TopText(MakeTopView(nullptr, now, TopOrder::kName), {});
  for (const char c : text) EXPECT_TRUE(c == '\n' || (c >= ' ' && c <= '~')) << int{c};
  EXPECT_THAT(text, HasSubstr("a?[2J?b?"));
}

TEST(TopTextTest, ThereAreNoColoursUnlessTheyAreWanted) {
  const TopView view = BusyView();
  EXPECT_THAT(TopText(view, {.width = 80, .bars = true}), Not(HasSubstr("\x1b")));
  EXPECT_THAT(TopText(view, {.width = 80, .bars = true}), HasSubstr("███░░ 62%"));
  EXPECT_THAT(TopText(view, {.width = 80, .bars = true, .colours = true}),
              HasSubstr("\x1b[33m█████ 95%\x1b[0m"));
}

TEST(TopJsonTest, NamesAreStable) {
  const nlohmann::ordered_json json = TopJson(BusyView());
  const auto names = [](const nlohmann::ordered_json& object) {
    std::vector<std::string> keys;
    for (const auto& [key, value] : object.items()) keys.push_back(key);
    return keys;
  };
  EXPECT_THAT(names(json),
              ElementsAre("time", "interval_s", "router", "shards_by_state", "total", "shards"));
  EXPECT_THAT(names(json["router"]),
              ElementsAre("address", "error", "age_s", "epoch", "sessions", "members_error"));
  EXPECT_THAT(names(json["total"]),
              ElementsAre("rated_shards", "tiers", "blocks", "leases", "attachments", "interval_s",
                          "hit_share", "counted", "per_second"));
  for (const auto& shard : json["shards"]) {
    EXPECT_THAT(names(shard),
                ElementsAre("id", "address", "state", "note", "tiers", "blocks", "leases",
                            "attachments", "interval_s", "hit_share", "counted", "per_second"));
  }
  EXPECT_THAT(names(json["shards"][0]["tiers"][0]),
              ElementsAre("tier", "used_bytes", "capacity_bytes", "lost"));
  for (const char* rates : {"counted", "per_second"}) {
    EXPECT_THAT(
        names(json["total"][rates]),
        ElementsAre("asked_blocks", "hit_blocks", "asked_tokens", "hit_tokens", "stored_blocks",
                    "in_bytes", "in_view_bytes", "in_nccl_bytes", "in_tcp_bytes", "in_stream_bytes",
                    "out_bytes", "out_view_bytes", "out_nccl_bytes", "out_tcp_bytes",
                    "out_stream_bytes", "evicted_blocks", "demoted_blocks", "refusals", "errors"));
  }
}

TEST(TopJsonTest, WhatIsNotKnownIsNull) {
  const nlohmann::ordered_json json = TopJson(BusyView());
  EXPECT_EQ(json["time"], "1970-01-01T00:16:42.000Z");
  EXPECT_EQ(json["interval_s"], 2.0);
  EXPECT_EQ(json["router"]["age_s"], 9.0);
  EXPECT_EQ(json["shards"][0]["counted"]["hit_blocks"], 180);
  EXPECT_EQ(json["shards"][0]["per_second"]["hit_blocks"], 90.0);
  EXPECT_EQ(json["shards"][0]["hit_share"], 0.9);
  EXPECT_EQ(json["shards"][0]["note"], nullptr);
  EXPECT_EQ(json["shards"][1]["hit_share"], nullptr) << "nobody asked";
  for (const char* number :
       {"blocks", "leases", "attachments", "interval_s", "hit_share", "counted", "per_second"}) {
    EXPECT_EQ(json["shards"][2][number], nullptr) << number;
  }
  EXPECT_EQ(json["shards"][2]["note"], "failed to connect: a: Connection refused");
  EXPECT_EQ(json["total"]["rated_shards"], 2);
}

}  // namespace
}  // namespace reprise::cli
