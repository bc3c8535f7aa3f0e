#include "service/router/holder_sets.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>

namespace reprise::router {
namespace {

using ::testing::ElementsAre;

TEST(HolderSetsTest, EqualSetsHaveEqualNumbersWhateverTheOrderOfArrival) {
  HolderSets sets;
  const SetId ab = sets.With(sets.With(0, {.stream = 1}), {.stream = 2});
  const SetId ba = sets.With(sets.With(0, {.stream = 2}), {.stream = 1});
  EXPECT_EQ(ab, ba);
  EXPECT_THAT(sets.Members(ab), ElementsAre(Holder{1}, Holder{2}));
}

TEST(HolderSetsTest, AStreamIsOnOneTierAtATime) {
  HolderSets sets;
  const SetId hbm = sets.With(0, {.stream = 3, .tier = Tier::kHbm});
  const SetId dram = sets.With(hbm, {.stream = 3, .tier = Tier::kDram});
  EXPECT_NE(hbm, dram);
  EXPECT_THAT(sets.Members(dram), ElementsAre(Holder{3, Tier::kDram}));
  EXPECT_EQ(sets.Without(dram, 3), 0u);
}

TEST(HolderSetsTest, RemovingWhoIsNotInItChangesNothing) {
  HolderSets sets;
  const SetId a = sets.With(0, {.stream = 1});
  EXPECT_EQ(sets.Without(a, 2), a);
  EXPECT_EQ(sets.Without(0, 2), 0u);
}

// Many more sets than are ever in use at once: their number stays near that of the blocks.
TEST(HolderSetsTest, SetsThatNoBlockRefersToAreCollectedAndThoseInUseStay) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  HolderSets sets;
  constexpr size_t kBlocks = 300;
  std::vector<SetId> blocks(kBlocks, 0);
  std::vector<std::map<StreamIndex, Tier>> want(kBlocks);
  for (int i = 0; i < 200'000; ++i) {
    const size_t b = random() % kBlocks;
    const auto stream = static_cast<StreamIndex>(random() % 40);
    if (random() % 2 == 0) {
      const Tier tier = random() % 2 == 0 ? Tier::kHbm : Tier::kDram;
      blocks[b] = sets.With(blocks[b], {.stream = stream, .tier = tier});
      want[b][stream] = tier;
    } else {
      blocks[b] = sets.Without(blocks[b], stream);
      want[b].erase(stream);
    }
  }
  for (size_t b = 0; b < kBlocks; ++b) {
    std::vector<Holder> expected;
    for (const auto& [stream, tier] : want[b]) expected.push_back({stream, tier});
    EXPECT_THAT(sets.Members(blocks[b]), ::testing::ElementsAreArray(expected)) << b;
  }
  EXPECT_LE(sets.size(), 2048u);
}

}  // namespace
}  // namespace reprise::router
