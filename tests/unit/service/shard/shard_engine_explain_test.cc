#include "tests/unit/service/shard/engine_fixture.h"

namespace reprise::shard {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class Explaining : public EngineTest {
 protected:
  // The keys follow from the tokens, as they do for a client.
  std::vector<BlockKey> KeysOf(const std::vector<uint32_t>& tokens) {
    std::vector<BlockKey> keys;
    std::string prefix;
    for (size_t i = 0; i + kSpec.block_tokens <= tokens.size(); i += kSpec.block_tokens) {
      for (size_t j = 0; j < kSpec.block_tokens; ++j) absl::StrAppend(&prefix, tokens[i + j], ",");
      keys.push_back(KeyNamed(prefix));
    }
    return keys;
  }
  std::vector<uint32_t> Tokens(size_t blocks, uint32_t first) {
    std::vector<uint32_t> tokens(blocks * kSpec.block_tokens);
    for (uint32_t i = 0; i < tokens.size(); ++i) tokens[i] = first + i;
    return tokens;
  }
  void StoreTokens(const std::vector<uint32_t>& tokens) {
    const std::vector<BlockKey> keys = KeysOf(tokens);
    ASSERT_TRUE(Store(me_, kSpec, {.spec = spec_, .keys = keys, .token_ids = tokens}).status.ok());
  }
  Explanation Explain(const std::vector<BlockKey>& keys, const std::vector<uint32_t>& tokens = {}) {
    const auto answer = engine_->Explain(Tenant{"default"}, FingerprintOf(kSpec), keys, tokens);
    EXPECT_TRUE(answer.ok()) << answer.status();
    return answer.ok() ? *answer : Explanation();
  }
};

TEST_F(Explaining, APromptThatIsStoredMissesNothing) {
  const std::vector<uint32_t> tokens = Tokens(3, 0);
  StoreTokens(tokens);
  const Explanation answer = Explain(KeysOf(tokens), tokens);
  EXPECT_EQ(answer.reason, MissReason::kNone);
  EXPECT_EQ(answer.run_blocks, 3u);
  EXPECT_EQ(answer.miss_block, 3u);
  ASSERT_EQ(answer.tiers.size(), 1u);
  EXPECT_EQ(answer.tiers[0].blocks, 3u);
  EXPECT_EQ(answer.sentence, "3 of 3 blocks are stored on shard-0. Nothing misses.");
}

TEST_F(Explaining, APromptThatStartsWithATimestampDiffersAtThatToken) {
  std::vector<uint32_t> tokens = Tokens(6, 1000);
  StoreTokens(tokens);
  tokens[2] = 77;  // the same prompt a minute later
  const Explanation answer = Explain(KeysOf(tokens), tokens);
  EXPECT_EQ(answer.reason, MissReason::kTokensDiffer);
  EXPECT_EQ(answer.run_blocks, 0u);
  EXPECT_EQ(answer.miss_block, 0u);
  EXPECT_EQ(answer.first_differing_token, 2u);
  EXPECT_EQ(answer.prompt_token, 77u);
  EXPECT_EQ(answer.stored_token, 1002u);
  EXPECT_THAT(answer.sentence,
              HasSubstr("tokens differ from the nearest stored sibling at token index 2"));
  EXPECT_THAT(answer.sentence, StartsWith("0 of 6 blocks are stored on shard-0. Block 0 misses"));
}

TEST_F(Explaining, TheNearestOfSeveralSiblingsIsNamed) {
  std::vector<uint32_t> tokens = Tokens(3, 0);
  StoreTokens(tokens);
  for (uint32_t at : {33u, 40u, 36u}) {  // all in block 2
    std::vector<uint32_t> other = tokens;
    other[at] = 999;
    StoreTokens(other);
  }
  tokens[40] = 888;
  tokens[41] = 1;
  const Explanation answer = Explain(KeysOf(tokens), tokens);
  EXPECT_EQ(answer.run_blocks, 2u);
  EXPECT_EQ(answer.reason, MissReason::kTokensDiffer);
  EXPECT_EQ(answer.first_differing_token, 40u);
  EXPECT_EQ(answer.prompt_token, 888u);
}

TEST_F(Explaining, WithoutTokensASiblingIsNoReason) {
  std::vector<uint32_t> tokens = Tokens(2, 0);
  StoreTokens(tokens);
  tokens[0] = 5;
  EXPECT_EQ(Explain(KeysOf(tokens)).reason, MissReason::kNeverStored);
  EXPECT_EQ(Explain(KeysOf(tokens), {1, 2}).reason, MissReason::kNeverStored);
  Store(ChainNamed("no tokens known", 2));
  EXPECT_EQ(Explain(KeysOf(tokens), tokens).reason, MissReason::kTokensDiffer);
}

TEST_F(Explaining, WhatWasNeverStoredIsSaidToBe) {
  const Explanation answer = Explain(ChainNamed("a", 2));
  EXPECT_EQ(answer.reason, MissReason::kNeverStored);
  EXPECT_THAT(answer.sentence, HasSubstr("never stored here"));
}

TEST_F(Explaining, ASpecThatNobodyOpenedIsSaidToBe) {
  const auto answer = engine_->Explain(Tenant{"default"}, Fingerprint(), ChainNamed("a", 1), {});
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(answer->reason, MissReason::kNeverStored);
  EXPECT_THAT(answer->sentence, HasSubstr("no client has opened the spec"));
}

TEST_F(Explaining, EvictedBlocksSayWhenAndByWhat) {
  const std::vector<BlockKey> chain = ChainNamed("a", 4);
  const int64_t before = absl::ToUnixMillis(absl::Now());
  Store(chain);
  for (int i = 0; i < 8; ++i) Store(ChainNamed(absl::StrCat("new", i), 8));
  const Explanation answer = Explain(chain);
  EXPECT_EQ(answer.reason, MissReason::kEvicted);
  EXPECT_EQ(answer.miss_block, answer.run_blocks);
  EXPECT_GE(answer.event_unix_ms, before);
  EXPECT_THAT(answer.event_cause, HasSubstr("another block of the same spec"));
  EXPECT_THAT(answer.sentence, HasSubstr("--dram"));
  Store(chain);
  EXPECT_EQ(Explain(chain).reason, MissReason::kNone);
}

TEST_F(Explaining, EvictionInTheBackgroundAndForAnotherSpecAreToldApart) {
  for (int i = 0; i < 8; ++i) Store(ChainNamed(absl::StrCat("c", i), 8));
  engine_->EvictToWatermark();
  EXPECT_THAT(Explain(ChainNamed("c0", 8)).event_cause, HasSubstr("background"));
  const CacheSpec large = SmallSpec(128, 64);
  const SpecHandle handle = Open(me_, large);
  Store(me_, large, {.spec = handle, .keys = ChainNamed("large", 2)});
  EXPECT_THAT(Explain(ChainNamed("c1", 8)).event_cause, HasSubstr("layers=128"));
}

TEST_F(Explaining, RemovedBlocksSayByWhom) {
  const std::vector<BlockKey> chain = ChainNamed("a", 2);
  Store(chain);
  const AttachmentId janitor = Attach("default", "janitor");
  ASSERT_EQ(engine_->Remove(janitor, Open(janitor, kSpec), {{chain[1]}})->removed, 1u);
  const Explanation answer = Explain(chain);
  EXPECT_EQ(answer.reason, MissReason::kRemoved);
  EXPECT_EQ(answer.run_blocks, 1u);
  EXPECT_THAT(answer.event_cause, HasSubstr("janitor"));
}

TEST_F(Explaining, QuarantinedBlocksSayWhy) {
  const std::vector<BlockKey> chain = ChainNamed("a", 3);
  Store(chain);
  engine_->Quarantine(Tenant{"default"}, FingerprintOf(kSpec), chain[1],
                      "a reader's checksum differed");
  const Explanation answer = Explain(chain);
  EXPECT_EQ(answer.reason, MissReason::kQuarantined);
  EXPECT_EQ(answer.run_blocks, 1u);
  EXPECT_THAT(answer.event_cause, HasSubstr("a reader's checksum differed"));
}

TEST_F(Explaining, APendingBlockIsSaidToBe) {
  const std::vector<BlockKey> chain = ChainNamed("a", 1);
  ASSERT_TRUE(engine_->Reserve(me_, {.spec = spec_, .keys = chain}).ok());
  EXPECT_EQ(Explain(chain).reason, MissReason::kPending);
}

TEST_F(Explaining, AKeyStoredUnderAnotherSpecNamesTheFieldThatDiffers) {
  const std::vector<BlockKey> chain = ChainNamed("a", 2);
  CacheSpec other = kSpec;
  other.dtype = DataType::kF16;
  Store(me_, other, {.spec = Open(me_, other), .keys = chain});
  const Explanation answer = Explain(chain);
  EXPECT_EQ(answer.reason, MissReason::kOtherSpec);
  EXPECT_EQ(answer.spec_difference.field, "dtype");
  EXPECT_EQ(answer.spec_difference.left, "bf16");
  EXPECT_EQ(answer.spec_difference.right, "f16");
  EXPECT_THAT(answer.sentence, HasSubstr("dtype is \"bf16\""));
  // To another tenant the same question tells nothing.
  const AttachmentId stranger = Attach("stranger");
  Open(stranger, kSpec);
  const auto foreign = engine_->Explain(Tenant{"stranger"}, FingerprintOf(kSpec), chain, {});
  ASSERT_TRUE(foreign.ok());
  EXPECT_EQ(foreign->reason, MissReason::kNeverStored);
}

TEST_F(Explaining, OfSeveralSpecsTheNearestIsTheOneThatIsNamed) {
  const std::vector<BlockKey> chain = ChainNamed("a", 1);
  for (int i = 0; i < 8; ++i) {
    CacheSpec far = kSpec;
    far.revision = absl::StrCat("other ", i);
    far.dtype = DataType::kF16;
    Store(me_, far, {.spec = Open(me_, far), .keys = chain});
  }
  CacheSpec near = kSpec;
  near.key_scheme = "other";
  Store(me_, near, {.spec = Open(me_, near), .keys = chain});
  EXPECT_EQ(Explain(chain).spec_difference.field, "key_scheme");
}

}  // namespace
}  // namespace reprise::shard
