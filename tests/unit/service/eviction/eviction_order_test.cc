#include "service/eviction/eviction_order.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <vector>

namespace reprise::shard {
namespace {

const absl::Time kStart = absl::UnixEpoch();

bool Anything(uint32_t) {
  return true;
}

class BothOrders : public testing::TestWithParam<Eviction> {
 protected:
  void Track(std::initializer_list<uint32_t> blocks, uint32_t group = 0) {
    for (uint32_t block : blocks) order_.Track(block, group, block, kStart);
  }
  EvictionOrder order_{GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Order, BothOrders, testing::Values(Eviction::kLearned, Eviction::kLru),
                         [](const auto& info) {
                           return info.param == Eviction::kLru ? "Lru" : "Learned";
                         });

TEST_P(BothOrders, UntilSomethingIsLearnedTheLeastRecentlyUsedGoesFirst) {
  Track({5, 1, 9});
  EXPECT_EQ(order_.Least(0, Anything), 5u);
  order_.Use(5, kStart + absl::Hours(1));
  EXPECT_EQ(order_.Least(0, Anything), 1u);
  order_.Refresh(1);
  EXPECT_EQ(order_.Least(0, Anything), 9u);
  order_.Forget(9);
  EXPECT_EQ(order_.Least(0, Anything), 5u);
  EXPECT_TRUE(order_.tracks(5));
  EXPECT_FALSE(order_.tracks(9));
  EXPECT_EQ(order_.tracked(0), 2u);
}

TEST_P(BothOrders, WhatWasUsedBeforeKeepsItsPlaceBeforeAllThatIsNew) {
  order_.BeginAfter(3);
  Track({5, 1});
  order_.Backdate(1, 2);
  order_.Track(7, 0, 7, kStart);
  order_.Backdate(7, 1);
  EXPECT_EQ(order_.last_use(5), 4u);
  EXPECT_EQ(order_.Least(0, Anything), 7u);
  order_.Forget(7);
  EXPECT_EQ(order_.Least(0, Anything), 1u);
  order_.SetEnd(1, false);
  order_.Backdate(1, 1);
  EXPECT_EQ(order_.Least(0, Anything), 5u);
  order_.SetEnd(1, true);
  EXPECT_EQ(order_.Least(0, Anything), 1u);
}

TEST_P(BothOrders, OnlyEndsLeave) {
  Track({0, 1, 2});  // 1 and 2 hang from 0
  order_.SetEnd(0, false);
  EXPECT_EQ(order_.Least(0, Anything), 1u);
  order_.Evict(1);
  EXPECT_EQ(order_.Least(0, Anything), 2u);
  order_.Evict(2);
  EXPECT_FALSE(order_.Least(0, Anything).has_value());
  EXPECT_FALSE(order_.LeastRank(0).has_value());
  order_.SetEnd(0, true);
  EXPECT_EQ(order_.Least(0, Anything), 0u);
}

TEST_P(BothOrders, WhatIsInUseIsPassedOverAndKeepsItsPlace) {
  Track({0, 1, 2});
  EXPECT_EQ(order_.Least(0, [](uint32_t block) { return block != 0; }), 1u);
  EXPECT_EQ(order_.Least(0, Anything), 0u);
  EXPECT_FALSE(order_.Least(0, [](uint32_t) { return false; }).has_value());
}

TEST_P(BothOrders, WhatIsClaimedGoesAfterAllThatIsNotByTheRankOfItsClaim) {
  Track({0, 1, 2, 3, 4});
  order_.SetClaim(0, 90);
  order_.SetClaim(1, 10);
  order_.SetClaim(2, 10);
  for (const uint32_t next : {3, 4, 1, 2, 0}) {
    EXPECT_EQ(order_.Least(0, Anything), next);
    order_.Evict(next);
  }
}

TEST_P(BothOrders, AClaimFollowsItsBlockAndEndsWithItsTracking) {
  Track({0, 1}, 10);
  order_.SetClaim(0, 50);
  order_.Use(0, kStart + absl::Hours(1));
  order_.Move(0, 20);
  EXPECT_EQ(order_.claim(0), 50);
  EXPECT_GT(*order_.LeastRank(20), *order_.LeastRank(10)) << "ranks of groups tell of claims";
  order_.SetEnd(0, false);
  order_.SetClaim(0, 60);
  EXPECT_FALSE(order_.LeastRank(20).has_value()) << "what is no end stays none";
  order_.SetEnd(0, true);
  EXPECT_EQ(order_.LeastRank(20)->claim, 60);
  order_.SetClaim(0, 0);
  EXPECT_EQ(order_.LeastRank(20)->claim, 0);
  order_.SetClaim(0, 50);
  order_.Forget(0);
  Track({0}, 10);
  EXPECT_EQ(order_.claim(0), 0);
}

TEST_P(BothOrders, GroupsAreApartAndRanksCompareThem) {
  Track({1}, 10);
  Track({2}, 20);
  EXPECT_LT(*order_.LeastRank(10), *order_.LeastRank(20));
  order_.Use(1, kStart);
  EXPECT_GT(*order_.LeastRank(10), *order_.LeastRank(20));
  EXPECT_EQ(order_.Least(10, Anything), 1u);
  EXPECT_EQ(order_.Least(20, Anything), 2u);
  EXPECT_FALSE(order_.LeastRank(30).has_value());
}

TEST_P(BothOrders, WhatMovesToAnotherGroupIsAsOldThereAsItWas) {
  Track({1, 2}, 10);
  Track({3}, 20);
  order_.Move(2, 20);
  EXPECT_EQ(order_.Least(20, Anything), 2u);  // used before 3
  EXPECT_EQ(order_.tracked(10), 1u);
  EXPECT_EQ(order_.tracked(20), 2u);
  order_.SetEnd(1, false);
  order_.Move(1, 20);
  EXPECT_EQ(order_.Least(20, Anything), 2u);  // 1 is older, and no end
}

// Blocks that are asked for every so often among a flood of others that never are. At every time
// most of what is stored was used more recently than those.
uint32_t HitsAmongAFlood(Eviction kind) {
  constexpr uint32_t kRegulars = 50, kBetween = 6, kRoom = 200, kRounds = 400;
  EvictionOrder order(kind);
  std::map<uint64_t, uint32_t> stored;  // key -> block
  std::vector<uint32_t> spare;
  for (uint32_t block = 0; block <= kRoom; ++block) spare.push_back(block);
  std::vector<uint64_t> keys(kRoom + 1);
  absl::Time now = kStart;
  uint64_t next_key = kRegulars;
  const auto ask = [&](uint64_t key) {
    now += absl::Seconds(2);
    if (const auto it = stored.find(key); it != stored.end()) {
      order.Use(it->second, now);
      return true;
    }
    const uint32_t block = spare.back();
    spare.pop_back();
    keys[block] = key;
    stored[key] = block;
    order.Track(block, 0, key, now);
    if (spare.empty()) {
      const uint32_t least = *order.Least(0, Anything);
      stored.erase(keys[least]);
      order.Evict(least);
      spare.push_back(least);
    }
    return false;
  };
  uint32_t hits = 0;
  for (uint32_t round = 0; round < kRounds; ++round) {
    for (uint64_t regular = 0; regular < kRegulars; ++regular) {
      const bool hit = ask(regular);
      hits += round >= kRounds / 2 && hit ? 1 : 0;
      for (uint32_t i = 0; i < kBetween; ++i) ask(next_key++);
    }
  }
  return hits * 100 / (kRegulars * kRounds / 2);  // percent, once it had time to learn
}

TEST(LearnedOrder, KeepsWhatComesBackThroughAFloodOfWhatDoesNot) {
  EXPECT_EQ(HitsAmongAFlood(Eviction::kLru), 0u);
  EXPECT_GE(HitsAmongAFlood(Eviction::kLearned), 90u);
}

// Stores eight blocks at a time and takes each up again with `again`, over and over. What a new
// block is worth then: 1 as long as nothing was learned, an eighth when they are taken to come
// back after eight uses.
template <typename Again>
double WorthOfANewBlock(Again again) {
  constexpr uint32_t kRequests = 500, kBlocks = 8;
  EvictionOrder order(Eviction::kLearned);
  absl::Time now = kStart;
  for (uint32_t request = 0; request < kRequests; ++request) {
    for (uint32_t i = 0; i < kBlocks; ++i) {
      order.Track(request * kBlocks + i, 1, request * kBlocks + i, now);
    }
    for (uint32_t i = 0; i < kBlocks; ++i) again(order, request * kBlocks + i, now);
    now += absl::Hours(1);
  }
  order.Track(kRequests * kBlocks, 2, kRequests * kBlocks, now);
  return order.LeastRank(2)->worth;
}

// One request asks for its blocks more than once: that is nothing to learn from.
TEST(LearnedOrder, UsesCloseToEachOtherCountAsOne) {
  const auto use_after = [](absl::Duration apart) {
    return [apart](EvictionOrder& order, uint32_t block, absl::Time now) {
      order.Use(block, now + apart);
    };
  };
  EXPECT_LT(WorthOfANewBlock(use_after(limits::kReuseApart)), 0.25);
  EXPECT_EQ(WorthOfANewBlock(use_after(limits::kReuseApart / 2)), 1);
}

// Storing more of a prompt passes its beginning: it did not come back.
TEST(LearnedOrder, AWriterThatPassesIsNoUse) {
  EXPECT_EQ(WorthOfANewBlock(
                [](EvictionOrder& order, uint32_t block, absl::Time) { order.Refresh(block); }),
            1);
}

// What another shard's readers do with a block is not known here: that a copy is dropped and stored
// again says nothing.
TEST(LearnedOrder, CopiesTeachNothingBeforeTheyAreRead) {
  const auto dropped_and_stored_again = [](bool copy) {
    return [copy](EvictionOrder& order, uint32_t block, absl::Time now) {
      order.Forget(block);
      order.Track(block, 1, block, now, copy);
      order.Evict(block);
      order.Track(block, 1, block, now);
    };
  };
  EXPECT_LT(WorthOfANewBlock(dropped_and_stored_again(false)), 1);
  EXPECT_EQ(WorthOfANewBlock(dropped_and_stored_again(true)), 1);
}

// What the order must do before it learns, written as plainly as possible: a vector per group, the
// one used longest ago first.
struct Model {
  std::map<uint32_t, std::vector<uint32_t>> groups;
  std::set<uint32_t> inner;

  std::vector<uint32_t>* Of(uint32_t block) {
    for (auto& [group, blocks] : groups) {
      if (std::find(blocks.begin(), blocks.end(), block) != blocks.end()) return &blocks;
    }
    return nullptr;
  }
  std::optional<uint32_t> Least(uint32_t group, const std::set<uint32_t>& in_use) {
    for (uint32_t block : groups[group]) {
      if (!in_use.contains(block) && !inner.contains(block)) return block;
    }
    return std::nullopt;
  }
};

TEST_P(BothOrders, BehavesAsTheModelDoes) {
  EXPECT_TRUE(
      rc::check("order against model", [](const std::vector<std::tuple<uint8_t, uint8_t>>& steps) {
        EvictionOrder order(GetParam());
        Model model;
        std::set<uint32_t> in_use;
        absl::Time now = kStart;
        for (const auto& [verb, argument] : steps) {
          now += absl::Milliseconds(300);
          const uint32_t block = argument % 12, group = argument % 3;
          std::vector<uint32_t>* const list = model.Of(block);
          const auto renew = [&] {
            list->erase(std::find(list->begin(), list->end(), block));
            list->push_back(block);
          };
          switch (verb % 8) {
            case 0:
              if (list != nullptr) break;
              order.Track(block, group, block, now);
              model.groups[group].push_back(block);
              break;
            case 1:
              if (list == nullptr) break;
              order.Use(block, now);
              renew();
              break;
            case 2:
              if (list == nullptr) break;
              order.Refresh(block);
              renew();
              break;
            case 3:
              if (list == nullptr) break;
              (argument % 2 == 0) ? order.Forget(block) : order.Evict(block);
              list->erase(std::find(list->begin(), list->end(), block));
              model.inner.erase(block);
              break;
            case 4:
              if (list == nullptr) break;
              order.SetEnd(block, model.inner.contains(block));
              if (!model.inner.erase(block)) model.inner.insert(block);
              break;
            case 5:
              if (list == nullptr) break;
              order.Move(block, group);
              list->erase(std::find(list->begin(), list->end(), block));
              model.groups[group].push_back(block);
              std::sort(
                  model.groups[group].begin(), model.groups[group].end(),
                  [&](uint32_t a, uint32_t b) { return order.last_use(a) < order.last_use(b); });
              break;
            case 6:
              if (!in_use.erase(block)) in_use.insert(block);
              break;
            case 7:
              RC_ASSERT(order.Least(group, [&](uint32_t b) { return !in_use.contains(b); }) ==
                        model.Least(group, in_use));
              break;
          }
          for (uint32_t g = 0; g < 3; ++g) {
            RC_ASSERT(order.tracked(g) == model.groups[g].size());
            RC_ASSERT(order.LeastRank(g).has_value() == model.Least(g, {}).has_value());
          }
          for (const auto& [g, blocks] : model.groups) {
            for (size_t i = 1; i < blocks.size(); ++i) {
              RC_ASSERT(order.last_use(blocks[i - 1]) < order.last_use(blocks[i]));
            }
          }
          for (uint32_t b = 0; b < 12; ++b) RC_ASSERT(order.tracks(b) == (model.Of(b) != nullptr));
        }
      }));
}

}  // namespace
}  // namespace reprise::shard
