#include "cluster/placement/placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "absl/strings/str_cat.h"

namespace reprise::cluster {
namespace {

using ::testing::ElementsAre;

constexpr int kKeys = 4000;

std::vector<PlacementMember> Members(int count) {
  std::vector<PlacementMember> members;
  for (int i = 0; i < count; ++i) members.push_back({.id = {absl::StrCat("shard-", i)}});
  return members;
}

std::string Key(int i) {
  return absl::StrCat("session/", i);
}

std::string First(const std::string& key, const std::vector<PlacementMember>& members) {
  return members[PlacementOrder(key, members).front()].id.name;
}

TEST(PlacementTest, OrderIsTheSameInEveryProcessAndVersion) {
  const std::vector<ShardId> ids = {{"shard-0"}, {"shard-1"}, {"shard-2"}, {"shard-3"}};
  const auto order = [&](absl::string_view key) {
    std::string text;
    for (const ShardId& id : PlacementOrder(key, ids)) text += id.name.back();
    return text;
  };
  EXPECT_EQ(order(""), "2130");
  EXPECT_EQ(order("session-1"), "2103");
  EXPECT_EQ(order("session-2"), "2031");
  EXPECT_EQ(order("user/42/chat"), "1032");
  EXPECT_EQ(order(std::string(64, 'a')), "1023");
}

TEST(PlacementTest, WeightedOrderIsTheSameInEveryProcessAndVersion) {
  const std::vector<PlacementMember> members = {
      {{"shard-0"}, 1.0}, {{"shard-1"}, 4.0}, {{"shard-2"}, 0.25}};
  const auto order = [&](absl::string_view key) {
    std::string text;
    for (uint32_t index : PlacementOrder(key, members)) text += members[index].id.name.back();
    return text;
  };
  EXPECT_EQ(order("session-1"), "120");
  EXPECT_EQ(order("session-2"), "012");
  EXPECT_EQ(order("session-3"), "012");
}

TEST(PlacementTest, AShardThatJoinsOrLeavesMovesOnlyItsShareOfTheKeys) {
  for (int n = 2; n <= 64; ++n) {
    const auto before = Members(n);
    const auto after = Members(n + 1);
    int moved = 0;
    for (int i = 0; i < kKeys; ++i) {
      const std::string was = First(Key(i), before);
      const std::string is = First(Key(i), after);
      if (was == is) continue;
      ++moved;
      // Read as a join, keys move to the newcomer alone; read as a leave, from the leaver alone.
      EXPECT_EQ(is, after.back().id.name);
    }
    EXPECT_LE(moved, kKeys * (1.0 / (n + 1) + 0.02)) << "n=" << n;
    EXPECT_GE(moved, kKeys * (1.0 / (n + 1) - 0.02)) << "n=" << n;
  }
}

TEST(PlacementTest, LosingAShardKeepsTheOrderOfTheOthers) {
  std::mt19937 random(7);
  for (int i = 0; i < 500; ++i) {
    auto members = Members(2 + static_cast<int>(random() % 20));
    for (auto& member : members) member.weight = 0.5 + static_cast<double>(random() % 8);
    std::vector<std::string> before;
    const size_t gone = random() % members.size();
    for (uint32_t index : PlacementOrder(Key(i), members)) {
      if (index != gone) before.push_back(members[index].id.name);
    }
    members.erase(members.begin() + static_cast<long>(gone));
    std::vector<std::string> after;
    for (uint32_t index : PlacementOrder(Key(i), members)) after.push_back(members[index].id.name);
    EXPECT_EQ(before, after);
  }
}

TEST(PlacementTest, OrderDoesNotDependOnHowMembersAreListed) {
  auto members = Members(9);
  const std::string first = First("k", members);
  std::reverse(members.begin(), members.end());
  EXPECT_EQ(First("k", members), first);
}

TEST(PlacementTest, KeysAreSharedInProportionToWeight) {
  const std::vector<PlacementMember> members = {
      {{"shard-0"}, 1.0}, {{"shard-1"}, 1.0}, {{"shard-2"}, 2.0}};
  std::map<std::string, int> share;
  constexpr int kMany = 40'000;
  for (int i = 0; i < kMany; ++i) ++share[First(Key(i), members)];
  EXPECT_NEAR(share["shard-0"], kMany * 0.25, kMany * 0.01);
  EXPECT_NEAR(share["shard-1"], kMany * 0.25, kMany * 0.01);
  EXPECT_NEAR(share["shard-2"], kMany * 0.50, kMany * 0.01);
}

TEST(PlacementTest, EveryShardIsSecondChoiceForItsShareOfANeighboursKeys) {
  const auto members = Members(4);
  std::map<std::string, int> second;
  int total = 0;
  for (int i = 0; i < 12'000; ++i) {
    const auto order = PlacementOrder(Key(i), members);
    if (order[0] != 0) continue;
    ++total;
    ++second[members[order[1]].id.name];
  }
  for (int i = 1; i < 4; ++i) {
    EXPECT_NEAR(second[absl::StrCat("shard-", i)], total / 3.0, total * 0.05);
  }
}

TEST(PlacementTest, ASessionStandsForItsChainAndElseTheFirstKeyDoes) {
  BlockKey key;
  key.bytes[0] = 0xab;
  const std::vector<BlockKey> keys = {key, BlockKey{}};
  EXPECT_EQ(PlacementKey("chat", keys), "chat");
  EXPECT_EQ(PlacementKey("", keys), "ab" + std::string(62, '0'));
  EXPECT_EQ(PlacementKey("", {}), "");
}

TEST(PlacementTest, NoMembersNoOrder) {
  EXPECT_TRUE(PlacementOrder("key", std::span<const PlacementMember>()).empty());
  EXPECT_THAT(PlacementOrder("key", std::vector<ShardId>{{"only"}}), ElementsAre(ShardId{"only"}));
}

}  // namespace
}  // namespace reprise::cluster
