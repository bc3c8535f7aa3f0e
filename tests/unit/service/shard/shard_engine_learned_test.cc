// What the engine tells the order of eviction, seen from outside: what stays and what goes once it
// has learned.

#include "tests/unit/service/shard/engine_fixture.h"

namespace reprise::shard {
namespace {

class Learned : public EngineTest, public ::testing::WithParamInterface<Eviction> {
 protected:
  static constexpr int kRounds = 60;
  static constexpr size_t kLength = 4;
  // Between two turns of the conversations come more blocks than there is room for.
  static constexpr int kConversations = 4, kFlood = 14;

  void SetUp() override {
    StartWith({.dram_bytes = 4 * kMiB, .eviction = GetParam(), .background_eviction = false});
  }

  // As an engine does: what is found is read, the rest is stored. Returns what was found.
  uint32_t Ask(const std::vector<BlockKey>& keys) {
    clock_.Advance(absl::Seconds(2));
    const AcquireResult found = Acquire(keys);
    Store(keys);
    if (found.lease) engine_->Release(me_, {{found.lease}}).IgnoreError();
    return found.run_blocks;
  }

  // Percent of the conversations' blocks that were found in the second half of the rounds.
  size_t HitsOfConversations() {
    size_t hits = 0;
    for (int round = 0; round < kRounds; ++round) {
      for (int i = 0; i < kConversations; ++i) {
        const uint32_t found = Ask(ChainNamed(absl::StrCat("again", i), kLength));
        hits += round >= kRounds / 2 ? found : 0;
      }
      for (int i = 0; i < kFlood; ++i)
        Ask(ChainNamed(absl::StrCat("once", round, "-", i), kLength + 1));
    }
    return hits * 100 / (kConversations * kLength * kRounds / 2);
  }
};
INSTANTIATE_TEST_SUITE_P(Eviction, Learned, ::testing::Values(Eviction::kLearned, Eviction::kLru),
                         [](const auto& info) {
                           return info.param == Eviction::kLru ? "Lru" : "Learned";
                         });

TEST_P(Learned, WhatComesBackStaysThroughAFloodOfWhatDoesNot) {
  const size_t hits = HitsOfConversations();
  if (GetParam() == Eviction::kLru) {
    EXPECT_EQ(hits, 0u);
  } else {
    EXPECT_GE(hits, 90u);
  }
}

// Nothing of it was ever dropped: that it is read again and again is known from the reads.
TEST_P(Learned, WhatIsReadAgainOutlivesABurst) {
  const auto conversation = [](int i) { return ChainNamed(absl::StrCat("again", i), kLength); };
  for (int round = 0; round < kRounds; ++round) {
    for (int i = 0; i < kConversations; ++i) Ask(conversation(i));
    for (int i = 0; i < kFlood / 3; ++i) Ask(ChainNamed(absl::StrCat("once", round, "-", i), 5));
  }
  for (int i = 0; i < kConversations; ++i) ASSERT_EQ(Run(conversation(i)), kLength) << "too early";
  for (int i = 0; i < 3 * kFlood; ++i) Ask(ChainNamed(absl::StrCat("burst", i), 5));
  for (int i = 0; i < kConversations; ++i) {
    EXPECT_EQ(Run(conversation(i)), GetParam() == Eviction::kLru ? 0 : kLength);
  }
}

}  // namespace
}  // namespace reprise::shard
