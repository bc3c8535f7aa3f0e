// Attachments, cache specs and what the shard says of itself.

#include "service/telemetry/counters.h"
#include "tests/unit/service/shard/engine_fixture.h"

namespace reprise::shard {
namespace {

using Presence = EngineTest;
using ::testing::HasSubstr;

TEST_F(Presence, ASpecOpenedTwiceHasOneHandle) {
  EXPECT_EQ(Open(me_, kSpec), spec_);
  EXPECT_NE(Open(me_, SmallSpec(2, 4)), spec_);
  const auto opened = engine_->OpenSpec(me_, kSpec, FingerprintOf(kSpec));
  ASSERT_TRUE(opened.ok());
  EXPECT_EQ(opened->fingerprint, FingerprintOf(kSpec));
  EXPECT_EQ(opened->block_bytes, kBlockBytes);
}

TEST_F(Presence, ASpecOtherThanExpectedIsRefusedByItsFirstFieldThatDiffers) {
  CacheSpec other = kSpec;
  other.dtype = DataType::kF16;
  other.rope_digest = "x";
  const auto refused = engine_->OpenSpec(me_, other, FingerprintOf(kSpec));
  EXPECT_EQ(CodeAndReason(refused.status()), "FAILED_PRECONDITION SPEC_DIFFERS");
  const std::string sentence(refused.status().message());
  EXPECT_THAT(sentence, HasSubstr("spec.dtype"));
  EXPECT_THAT(sentence, HasSubstr("\"f16\""));
  EXPECT_THAT(sentence, HasSubstr("\"bf16\""));
  EXPECT_EQ(CounterValue("refused_spec_differs_total"), 1u);
}

TEST_F(Presence, AnExpectedFingerprintThatNobodyKnowsIsRefused) {
  EXPECT_EQ(CodeAndReason(engine_->OpenSpec(me_, kSpec, Fingerprint()).status()),
            "FAILED_PRECONDITION FINGERPRINT_UNKNOWN");
}

TEST_F(Presence, TheSpecsOfAnotherTenantAreNotKnown) {
  const AttachmentId stranger = Attach("stranger");
  CacheSpec other = kSpec;
  other.dtype = DataType::kF16;
  EXPECT_EQ(CodeAndReason(engine_->OpenSpec(stranger, other, FingerprintOf(kSpec)).status()),
            "FAILED_PRECONDITION FINGERPRINT_UNKNOWN");
  EXPECT_TRUE(engine_->Describe(Tenant{"stranger"}).specs.empty());
}

TEST_F(Presence, ABlockThatFitsNoExtentIsRefusedWithTheCure) {
  const CacheSpec large = SmallSpec(1024, 64);  // 4 MiB
  const auto refused = engine_->OpenSpec(me_, large, std::nullopt);
  EXPECT_EQ(CodeAndReason(refused.status()), "FAILED_PRECONDITION BLOCK_TOO_LARGE");
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("--dram"));
}

TEST_F(Presence, AnInvalidSpecIsRefused) {
  CacheSpec bad = kSpec;
  bad.layers = 0;
  EXPECT_EQ(CodeAndReason(engine_->OpenSpec(me_, bad, std::nullopt).status()),
            "INVALID_ARGUMENT SPEC_FIELD");
}

TEST_F(Presence, TenantsDoNotSeeEachOthersBlocks) {
  const std::vector<BlockKey> chain = ChainNamed("a", 2);
  Store(chain);
  const AttachmentId stranger = Attach("stranger");
  const SpecHandle spec = Open(stranger, kSpec);
  EXPECT_EQ(Run(stranger, spec, chain), 0u);
  EXPECT_EQ(engine_->Acquire(stranger, {.spec = spec, .keys = chain})->run_blocks, 0u);
  EXPECT_EQ(engine_->Remove(stranger, spec, chain)->removed, 0u);
  EXPECT_EQ(Store(stranger, kSpec, {.spec = spec, .keys = chain}).commit.committed, 2u);
  EXPECT_EQ(Run(chain), 2u);
}

TEST_F(Presence, DetachEndsLeases) {
  const std::vector<BlockKey> chain = ChainNamed("a", 1);
  Store(chain);
  const LeaseId lease = Acquire(chain).lease;
  engine_->Detach(me_);
  EXPECT_EQ(CodeAndReason(engine_->OpenRead(me_, lease, 0, 0).status()),
            "NOT_FOUND ATTACHMENT_UNKNOWN");
  const EngineDescription description = engine_->Describe(Tenant{"default"});
  EXPECT_EQ(description.leases, 0u);
  EXPECT_EQ(description.attachments, 0u);
  EXPECT_EQ(description.blocks, 1u);
  engine_->Detach(me_);  // once more does nothing
}

TEST_F(Presence, AnAttachmentSilentForThreeIntervalsEnds) {
  const absl::Duration silence = limits::kKeepAliveInterval * limits::kKeepAlivesMissedMax;
  clock_.Advance(silence - absl::Milliseconds(1));
  engine_->Tick();
  EXPECT_TRUE(engine_->KeepAlive(me_).ok());
  clock_.Advance(silence);
  engine_->Tick();
  EXPECT_EQ(CodeAndReason(engine_->KeepAlive(me_)), "NOT_FOUND ATTACHMENT_UNKNOWN");
  EXPECT_EQ(CounterValue("expired_attachments_total"), 1u);
}

TEST_F(Presence, AttachmentsAndSpecsBeyondTheirLimitsAreRefused) {
  for (size_t i = 1; i < limits::kAttachmentsMax; ++i)
    ASSERT_TRUE(engine_->Attach(Tenant{"default"}, "x").ok());
  EXPECT_EQ(CodeAndReason(engine_->Attach(Tenant{"default"}, "x").status()),
            "RESOURCE_EXHAUSTED ATTACHMENTS_MAX");
  for (size_t i = 1; i < limits::kSpecsPerAttachmentMax; ++i) {
    CacheSpec spec = kSpec;
    spec.revision = absl::StrCat(i);
    ASSERT_TRUE(engine_->OpenSpec(me_, spec, std::nullopt).ok());
  }
  EXPECT_EQ(CodeAndReason(engine_->OpenSpec(me_, SmallSpec(2, 4), std::nullopt).status()),
            "RESOURCE_EXHAUSTED SPECS_PER_ATTACHMENT_MAX");
  EXPECT_EQ(CounterValue("refused_attachments_total"), 1u);
  EXPECT_EQ(CounterValue("refused_specs_total"), 1u);
}

TEST_F(Presence, SpecsThatNobodyUsesMakeRoomForNewOnes) {
  const std::vector<BlockKey> chain = ChainNamed("a", 1);
  Store(chain);
  for (size_t i = 0; i < 2 * limits::kSpecsPerTenantMax; ++i) {
    const AttachmentId who = Attach("default");
    CacheSpec spec = kSpec;
    spec.revision = absl::StrCat(i);
    ASSERT_TRUE(engine_->OpenSpec(who, spec, std::nullopt).ok()) << i;
    engine_->Detach(who);
  }
  EXPECT_EQ(Run(chain), 1u);
  EXPECT_LE(engine_->Describe(Tenant{"default"}).specs.size(), limits::kSpecsPerTenantMax);
}

TEST_F(Presence, EveryCounterIsThereAtZeroFromTheStart) {
  const auto counters = engine_->Describe(Tenant{"default"}).counters;
  EXPECT_EQ(counters.size(), static_cast<size_t>(Counter::kCount));
  for (const auto& [name, value] : counters) {
    EXPECT_EQ(value, 0u) << name;
    EXPECT_THAT(name, ::testing::EndsWith("_total"));
  }
}

TEST_F(Presence, DescribeCountsBlocksAndBytes) {
  Store(ChainNamed("a", 3));
  ASSERT_TRUE(engine_->Reserve(me_, {.spec = spec_, .keys = ChainNamed("b", 2)}).ok());
  const EngineDescription description = engine_->Describe(Tenant{"default"});
  EXPECT_EQ(description.blocks, 3u);
  EXPECT_EQ(description.reservations, 1u);
  ASSERT_EQ(description.tiers.size(), 1u);
  EXPECT_EQ(description.tiers[0].tier, Tier::kDram);
  EXPECT_EQ(description.tiers[0].capacity_bytes, 4 * kMiB);
  EXPECT_EQ(description.tiers[0].used_bytes, 5 * kBlockBytes);
  ASSERT_EQ(description.specs.size(), 1u);
  EXPECT_EQ(description.specs[0].blocks, 3u);
  EXPECT_EQ(description.specs[0].spec, kSpec);
  EXPECT_EQ(description.specs[0].block_bytes, kBlockBytes);
}

TEST_F(Presence, AShardWithoutMemoryDoesNotStart) {
  EXPECT_EQ(CodeAndReason(ShardEngine::Create({.id = {"s"}, .dram_bytes = 0}).status()),
            "INVALID_ARGUMENT DRAM_SIZE");
  EXPECT_EQ(CodeAndReason(ShardEngine::Create({.id = {"s"}, .dram_bytes = 1ull << 50}).status()),
            "RESOURCE_EXHAUSTED NO_MEMORY");
}

}  // namespace
}  // namespace reprise::shard
