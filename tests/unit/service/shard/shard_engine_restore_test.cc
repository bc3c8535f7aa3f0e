// Odd contents of a kept disk's journal, of another version or damaged: what is taken over of them
// and what is not.
#include <filesystem>
#include <vector>

#include "tests/unit/service/shard/kept_fixture.h"

namespace reprise::shard {
namespace {

using ::testing::HasSubstr;

TEST_F(KeptTest, AJournalThatNobodyCanReadIsADiskThatStartsEmptyAndSaysWhy) {
  Fill(0, 2);
  Save();
  engine_ = nullptr;
  std::filesystem::resize_file(PathOf("journal"), 10);
  Begin();
  EXPECT_EQ(Disk().restored_blocks, 0u);
  EXPECT_THAT(Disk().why_empty, HasSubstr("10 bytes"));
  EXPECT_EQ(Run(Chain(0)), 0u);
  Fill(10, 2);
  ExpectStored(10, 2);
}

TEST_F(KeptTest, ADamagedJournalCostsWhatItSaysAfterTheDamage) {
  Fill(0, 2);
  Save();
  engine_ = nullptr;
  const auto bytes = std::filesystem::file_size(PathOf("journal"));
  std::filesystem::resize_file(PathOf("journal"), bytes / 2);
  Begin();
  ExpectSound();
  EXPECT_FALSE(Disk().clean);
  for (size_t i = 0; i < 2; ++i) {
    const uint32_t run = Run(Chain(i));
    if (run > 0) ExpectStored(First(Chain(i), run));
  }
  Fill(10, 2);
  ExpectStored(10, 2);
}

TEST_F(KeptTest, ASpecOfAnotherFingerprintBringsNoBlocks) {
  Fill(0, 1);
  Save();
  RestartWith([](KeptContents& contents) { contents.spaces.front().fingerprint.bytes[0] ^= 1; });
  EXPECT_EQ(Disk().restored_blocks, 0u);
  Fill(0, 1);
  ExpectStored(0, 1);
}

TEST_F(KeptTest, ASpecThatNobodyMayOpenBringsNoBlocks) {
  Fill(0, 1);
  Save();
  RestartWith([](KeptContents& contents) {
    KeptSpace& space = contents.spaces.front();
    space.spec.model = "";
    space.fingerprint = FingerprintOf(space.spec);
  });
  EXPECT_EQ(Disk().restored_blocks, 0u);
}

// A shard may know more key spaces than one tenant may have at a time: those that it had once.
TEST_F(KeptTest, ATenantThatHasHadMoreSpecsThanItMayHaveIsServed) {
  Fill(0, 1);
  Save();
  RestartWith([](KeptContents& contents) {
    for (uint32_t i = 0; i < limits::kSpecsPerTenantMax + 10; ++i) {
      KeptSpace space = contents.spaces.front();
      space.number = 1000 + i;
      space.spec.scope = absl::StrCat("user ", i);
      space.fingerprint = FingerprintOf(space.spec);
      contents.spaces.push_back(space);
      KeptBlock block = contents.blocks.front();
      block.space = space.number;
      block.slot = {3, 1000 + i};  // no such place
      contents.blocks.push_back(block);
    }
  });
  Fill(1, 1);
  ExpectStored(0, 2);
}

TEST_F(KeptTest, BlocksThatAreLaidOutInAnotherWayAreOfNoUse) {
  Fill(0, 1);
  Save();
  RestartWith([](KeptContents& contents) { contents.spaces.front().shape.section_bytes /= 2; });
  EXPECT_EQ(Disk().restored_blocks, 0u);
  Fill(0, 1);
  Save();
  RestartWith([](KeptContents& contents) { contents.spaces.front().shape.block_bytes /= 2; });
  EXPECT_EQ(Disk().restored_blocks, 0u);
}

TEST_F(KeptTest, AFirstBlockIsFirstInItsChainAndNoOtherIs) {
  Fill(0, 3);
  Save();
  RestartWith([](KeptContents& contents) {
    for (KeptBlock& block : contents.blocks) {
      if (block.key == Chain(0)[0]) block.depth = 3;       // and hangs from nothing
      if (block.key == Chain(1)[2]) block.parent.reset();  // and is not the first
    }
  });
  EXPECT_EQ(Disk().restored_blocks, 3 * kLength - 2);
  EXPECT_EQ(Run(Chain(0)), 0u);
  ExpectStored(First(Chain(1), 2));
  EXPECT_EQ(Run(Chain(1)), 2u);
  ExpectStored(2, 1);
}

TEST_F(KeptTest, ABlockHangsFromTheOneBeforeItInItsChain) {
  Fill(0, 2);
  Save();
  RestartWith([](KeptContents& contents) {
    for (KeptBlock& block : contents.blocks) {
      if (block.key == Chain(0)[2]) block.depth = 5;
    }
  });
  EXPECT_EQ(Run(Chain(0)), 2u);
  EXPECT_EQ(CounterValue("unadopted_blocks_total"), 1u);
  ExpectStored(1, 1);
}

TEST_F(KeptTest, OfABlockInTwoPlacesTheOneThatWasWrittenLastCounts) {
  Fill(0, 2);
  Save();
  RestartWith([](KeptContents& contents) {
    for (const size_t depth : {0u, 4u}) {
      KeptBlock earlier;
      for (const KeptBlock& block : contents.blocks) {
        if (block.key == Chain(0)[depth]) earlier = block;
      }
      earlier.slot.index = static_cast<uint32_t>(30 + depth / 4);
      contents.blocks.insert(contents.blocks.begin(), earlier);
    }
  });
  EXPECT_EQ(Disk().restored_blocks, 2 * kLength);
  ExpectStored(0, 2);
}

TEST_F(KeptTest, TokensOfAnotherNumberThanABlockHasAreNotTaken) {
  const std::vector<uint32_t> tokens(kLength * kSpec.block_tokens, 1000);
  for (size_t i = 0; i < 3; ++i) {
    ASSERT_TRUE(
        Store(me_, kSpec, {.spec = spec_, .keys = Chain(i), .token_ids = tokens}).status.ok());
  }
  Save();
  RestartWith([](KeptContents& contents) {
    for (KeptBlock& block : contents.blocks) {
      if (block.key == Chain(0)[2]) block.token_ids.resize(1);
      if (block.key == Chain(1)[2]) block.token_ids.push_back(1000);
    }
  });
  EXPECT_EQ(Disk().restored_blocks, 3 * kLength);
  for (const ChainEnd& end : engine_->Chains()) {
    const auto chain = engine_->ChainTo(end);
    EXPECT_EQ(chain->token_ids, chain->keys == Chain(2) ? tokens : std::vector<uint32_t>());
  }
  for (size_t i = 0; i < 3; ++i) {
    std::vector<BlockKey> asked = First(Chain(i), 2);
    asked.push_back(KeyNamed("other tokens"));
    std::vector<uint32_t> asked_tokens(3 * kSpec.block_tokens, 1000);
    asked_tokens.back() = 7;
    const auto answer =
        engine_->Explain(Tenant{"default"}, FingerprintOf(kSpec), asked, asked_tokens);
    EXPECT_EQ(answer->reason == MissReason::kTokensDiffer, i == 2) << i;
  }
  for (const KeptBlock& block : Journaled()) {
    const bool unknown = block.key == Chain(0)[2] || block.key == Chain(1)[2];
    EXPECT_EQ(block.token_ids.size(), unknown ? 0u : kSpec.block_tokens);
  }
  ExpectStored(0, 3);
}

}  // namespace
}  // namespace reprise::shard
