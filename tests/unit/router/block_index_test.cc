#include "service/router/block_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "tests/unit/router/support.h"

namespace reprise::router {
namespace {

const KeySpace kSpace = {{"default"}, FingerprintNamed(1)};

std::map<StreamIndex, uint32_t> RunsOf(const BlockIndex& index, std::span<const BlockKey> keys,
                                       const KeySpace& space = kSpace) {
  std::map<StreamIndex, uint32_t> runs;
  for (const StreamRun& run : index.Runs(space, keys)) {
    EXPECT_TRUE(runs.emplace(run.stream, run.blocks).second) << "stream answered twice";
  }
  return runs;
}

void SweepAll(BlockIndex& index) {
  while (index.SweepSome()) {
  }
}

TEST(BlockIndexTest, EachStreamsRunEndsWhereItsBlocksEnd) {
  BlockIndex index;
  const auto keys = Chain(1, 100);
  const StreamIndex a = index.OpenStream();
  const StreamIndex b = index.OpenStream();
  const StreamIndex c = index.OpenStream();
  index.Store(a, kSpace, keys, Tier::kDram);
  index.Store(b, kSpace, std::span(keys).first(37), Tier::kDram);
  index.Store(c, kSpace, std::span(keys).first(1), Tier::kDram);
  EXPECT_THAT(RunsOf(index, keys),
              ::testing::ElementsAre(std::pair(a, 100u), std::pair(b, 37u), std::pair(c, 1u)));
  EXPECT_THAT(RunsOf(index, std::span(keys).first(37)),
              ::testing::ElementsAre(std::pair(a, 37u), std::pair(b, 37u), std::pair(c, 1u)));
  EXPECT_TRUE(RunsOf(index, Chain(2, 5)).empty());
  EXPECT_TRUE(RunsOf(index, {}).empty());
}

TEST(BlockIndexTest, TheSlowestTierOfARunIsTold) {
  BlockIndex index;
  const auto keys = Chain(1, 8);
  const StreamIndex a = index.OpenStream();
  index.Store(a, kSpace, std::span(keys).first(4), Tier::kHbm);
  EXPECT_EQ(index.Runs(kSpace, keys).front().tier, Tier::kHbm);
  index.Store(a, kSpace, std::span(keys).last(4), Tier::kNvme);
  EXPECT_EQ(index.Runs(kSpace, keys).front().tier, Tier::kNvme);
  EXPECT_EQ(index.stream_blocks(a), 8u);
}

TEST(BlockIndexTest, KeySpacesNeverMeet) {
  BlockIndex index;
  const auto keys = Chain(1, 4);
  const StreamIndex a = index.OpenStream();
  index.Store(a, kSpace, keys, Tier::kDram);
  EXPECT_TRUE(RunsOf(index, keys, {{"other"}, kSpace.fingerprint}).empty());
  EXPECT_TRUE(RunsOf(index, keys, {kSpace.tenant, FingerprintNamed(2)}).empty());
  index.Remove(a, {{"other"}, kSpace.fingerprint}, keys);
  EXPECT_EQ(index.blocks(), 4u);
}

TEST(BlockIndexTest, ARetiredStreamIsGoneAtOnceAndCleanedUpLater) {
  BlockIndex index;
  const auto keys = Chain(1, 500);
  const StreamIndex a = index.OpenStream();
  const StreamIndex b = index.OpenStream();
  index.Store(a, kSpace, keys, Tier::kDram);
  index.Store(b, kSpace, std::span(keys).first(200), Tier::kDram);
  index.RetireStream(a);
  EXPECT_THAT(RunsOf(index, keys), ::testing::ElementsAre(std::pair(b, 200u)));
  EXPECT_EQ(index.blocks(), 500u);
  // A stream opened meanwhile must not inherit what has not been cleaned up yet.
  const StreamIndex c = index.OpenStream();
  EXPECT_NE(c, a);
  SweepAll(index);
  EXPECT_EQ(index.blocks(), 200u);
  EXPECT_EQ(index.OpenStream(), a);
  EXPECT_THAT(RunsOf(index, keys), ::testing::ElementsAre(std::pair(b, 200u)));
}

TEST(BlockIndexTest, WhatIsEmptyTakesNoRoom) {
  BlockIndex index;
  const StreamIndex a = index.OpenStream();
  for (uint8_t space = 0; space < 50; ++space) {
    const KeySpace name = {{"default"}, FingerprintNamed(space)};
    index.Store(a, name, Chain(space, 10), Tier::kDram);
    index.Remove(a, name, Chain(space, 10));
    index.Store(a, name, {}, Tier::kDram);
  }
  EXPECT_EQ(index.blocks(), 0u);
  EXPECT_EQ(index.key_spaces(), 0u);
  EXPECT_EQ(index.stream_blocks(a), 0u);
}

TEST(BlockIndexTest, AFullIndexLeavesFurtherBlocksOutAndCountsThem) {
  BlockIndex index(10);
  const StreamIndex a = index.OpenStream();
  const StreamIndex b = index.OpenStream();
  const auto keys = Chain(1, 16);
  index.Store(a, kSpace, keys, Tier::kDram);
  EXPECT_EQ(index.blocks(), 10u);
  EXPECT_EQ(index.blocks_left_out(), 6u);
  EXPECT_THAT(RunsOf(index, keys), ::testing::ElementsAre(std::pair(a, 10u)));
  index.Store(b, kSpace, std::span(keys).first(10), Tier::kDram);
  EXPECT_EQ(index.blocks_left_out(), 6u);
  index.Store(a, {{"other"}, kSpace.fingerprint}, keys, Tier::kDram);
  EXPECT_EQ(index.key_spaces(), 1u);
}

// The reference: a set of keys per stream, walked block by block.
struct Reference {
  std::map<StreamIndex, std::set<BlockKey>> held;

  std::map<StreamIndex, uint32_t> Runs(std::span<const BlockKey> keys) const {
    std::map<StreamIndex, uint32_t> runs;
    for (const auto& [stream, set] : held) {
      uint32_t run = 0;
      while (run < keys.size() && set.contains(keys[run])) ++run;
      if (run > 0) runs[stream] = run;
    }
    return runs;
  }
};

// A tree of chains: chain c shares its first Shared(c) blocks with chain c / 2.
std::vector<BlockKey> TreeChain(uint64_t chain, size_t blocks) {
  if (chain == 0) return Chain(0, blocks);
  const size_t shared = std::min<size_t>((chain * 7) % 23, blocks);
  std::vector<BlockKey> keys = TreeChain(chain / 2, shared);
  for (size_t i = shared; i < blocks; ++i) keys.push_back(KeyOf(chain, i));
  return keys;
}

TEST(BlockIndexTest, AnswersAreThoseOfOneSetPerStreamUnderRandomForests) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  BlockIndex index;
  Reference reference;
  std::vector<StreamIndex> open;
  for (int step = 0; step < 20'000; ++step) {
    const unsigned what = random() % 100;
    const auto keys = TreeChain(random() % 32, 1 + random() % 70);
    if (open.empty() || (what < 2 && open.size() < 12)) {
      open.push_back(index.OpenStream());
      ASSERT_FALSE(reference.held.contains(open.back()));
      reference.held[open.back()];
      continue;
    }
    const size_t at = random() % open.size();
    const StreamIndex stream = open[at];
    if (what < 3) {
      index.RetireStream(stream);
      reference.held.erase(stream);
      open.erase(open.begin() + static_cast<long>(at));
    } else if (what < 40) {
      index.Store(stream, kSpace, keys, random() % 2 == 0 ? Tier::kHbm : Tier::kDram);
      reference.held[stream].insert(keys.begin(), keys.end());
    } else if (what < 55) {
      // A whole subtree goes, as at a shard: every stored chain that runs through keys.back().
      std::set<BlockKey> gone;
      for (uint64_t chain = 0; chain < 32; ++chain) {
        const auto other = TreeChain(chain, 70);
        const auto from = std::find(other.begin(), other.end(), keys.back());
        gone.insert(from, other.end());
      }
      index.Remove(stream, kSpace, std::vector<BlockKey>(gone.begin(), gone.end()));
      for (const BlockKey& key : gone) reference.held[stream].erase(key);
    } else if (what < 60) {
      index.SweepSome();
    } else {
      ASSERT_EQ(RunsOf(index, keys), reference.Runs(keys)) << "step " << step;
    }
  }
  SweepAll(index);
  std::set<BlockKey> all;
  for (const auto& [stream, keys] : reference.held) {
    EXPECT_EQ(index.stream_blocks(stream), keys.size());
    all.insert(keys.begin(), keys.end());
  }
  EXPECT_EQ(index.blocks(), all.size());
}

}  // namespace
}  // namespace reprise::router
