#include "service/eviction/lru_policy.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

namespace reprise::shard {
namespace {

bool Anything(uint32_t) {
  return true;
}

TEST(LruPolicy, TheLeastRecentlyUsedGoesFirst) {
  LruPolicy policy;
  for (uint32_t block : {5u, 1u, 9u}) policy.Track(block, 0);
  EXPECT_EQ(policy.Coldest(0, Anything), 5u);
  policy.Touch(5);
  EXPECT_EQ(policy.Coldest(0, Anything), 1u);
  policy.Forget(1);
  EXPECT_EQ(policy.Coldest(0, Anything), 9u);
  EXPECT_TRUE(policy.tracks(9));
  EXPECT_FALSE(policy.tracks(1));
  EXPECT_EQ(policy.tracked(0), 2u);
}

TEST(LruPolicy, ARunTouchedLeafFirstLeavesLeafFirst) {
  LruPolicy policy;
  for (uint32_t block : {0u, 1u, 2u}) policy.Track(block, 0);  // 0 is the root
  for (uint32_t block : {2u, 1u, 0u}) policy.Touch(block);
  for (uint32_t block : {2u, 1u, 0u}) {
    EXPECT_EQ(policy.Coldest(0, Anything), block);
    policy.Forget(block);
  }
  EXPECT_FALSE(policy.Coldest(0, Anything).has_value());
}

TEST(LruPolicy, WhatIsInUseGetsItsTurnAgainAtTheEnd) {
  LruPolicy policy;
  for (uint32_t block : {0u, 1u, 2u}) policy.Track(block, 0);
  EXPECT_EQ(policy.Coldest(0, [](uint32_t block) { return block != 0; }), 1u);
  policy.Forget(1);
  EXPECT_EQ(policy.Coldest(0, Anything), 2u);
  policy.Forget(2);
  EXPECT_EQ(policy.Coldest(0, Anything), 0u);
  EXPECT_FALSE(policy.Coldest(0, [](uint32_t) { return false; }).has_value());
}

TEST(LruPolicy, GroupsAreApartAndStampsCompareThem) {
  LruPolicy policy;
  policy.Track(1, 10);
  policy.Track(2, 20);
  EXPECT_LT(policy.ColdestStamp(10), policy.ColdestStamp(20));
  policy.Touch(1);
  EXPECT_GT(policy.ColdestStamp(10), policy.ColdestStamp(20));
  EXPECT_EQ(policy.Coldest(10, Anything), 1u);
  EXPECT_EQ(policy.Coldest(20, Anything), 2u);
  EXPECT_EQ(policy.ColdestStamp(30), EvictionPolicy::kNeverStamp);
}

// What the policy must do, written as plainly as possible: a vector per group, coldest first.
struct Model {
  std::map<uint32_t, std::vector<uint32_t>> groups;

  std::vector<uint32_t>* Of(uint32_t block) {
    for (auto& [group, blocks] : groups) {
      if (std::find(blocks.begin(), blocks.end(), block) != blocks.end()) return &blocks;
    }
    return nullptr;
  }
  std::optional<uint32_t> Coldest(uint32_t group, const std::set<uint32_t>& in_use) {
    std::vector<uint32_t>& blocks = groups[group];
    for (size_t tries = blocks.size(); tries > 0; --tries) {
      if (!in_use.contains(blocks.front())) return blocks.front();
      std::rotate(blocks.begin(), blocks.begin() + 1, blocks.end());
    }
    return std::nullopt;
  }
};

TEST(LruPolicy, BehavesAsTheModelDoes) {
  EXPECT_TRUE(
      rc::check("policy against model", [](const std::vector<std::tuple<uint8_t, uint8_t>>& steps) {
        LruPolicy policy;
        Model model;
        std::set<uint32_t> in_use;
        for (const auto& [verb, argument] : steps) {
          const uint32_t block = argument % 12, group = argument % 3;
          std::vector<uint32_t>* const list = model.Of(block);
          switch (verb % 5) {
            case 0:
              if (list == nullptr) {
                policy.Track(block, group);
                model.groups[group].push_back(block);
              }
              break;
            case 1:
              if (list != nullptr) {
                policy.Touch(block);
                list->erase(std::find(list->begin(), list->end(), block));
                list->push_back(block);
              }
              break;
            case 2:
              if (list != nullptr) {
                policy.Forget(block);
                list->erase(std::find(list->begin(), list->end(), block));
              }
              break;
            case 3:
              if (!in_use.erase(block)) in_use.insert(block);
              break;
            case 4:
              RC_ASSERT(policy.Coldest(group, [&](uint32_t b) { return !in_use.contains(b); }) ==
                        model.Coldest(group, in_use));
              break;
          }
          for (uint32_t g = 0; g < 3; ++g) {
            RC_ASSERT(policy.tracked(g) == model.groups[g].size());
            RC_ASSERT((policy.ColdestStamp(g) == EvictionPolicy::kNeverStamp) ==
                      model.groups[g].empty());
          }
          for (const auto& [g, blocks] : model.groups) {
            for (size_t i = 1; i < blocks.size(); ++i) {
              RC_ASSERT(policy.Stamp(blocks[i - 1]) < policy.Stamp(blocks[i]));
            }
          }
          for (uint32_t b = 0; b < 12; ++b) RC_ASSERT(policy.tracks(b) == (model.Of(b) != nullptr));
        }
        for (auto& [g, blocks] : model.groups) {
          for (uint32_t b : std::vector<uint32_t>(blocks)) {
            RC_ASSERT(policy.Coldest(g, Anything) == b);
            policy.Forget(b);
          }
        }
      }));
}

}  // namespace
}  // namespace reprise::shard
