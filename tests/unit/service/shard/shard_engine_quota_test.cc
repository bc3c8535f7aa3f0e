#include "tests/unit/service/shard/engine_fixture.h"

namespace reprise::shard {
namespace {

// Tenants "small", with a quota of 16 blocks, and "default", with none, in a pool of 64.
class Quota : public EngineTest {
 protected:
  static constexpr size_t kQuotaBlocks = 16;

  void SetUp() override {
    TenantQuotas quotas;
    quotas.named[Tenant{"small"}] = kQuotaBlocks * kBlockBytes;
    Start(4 * kMiB, /*background_eviction=*/false, std::move(quotas));
    small_ = Attach("small");
    small_spec_ = Open(small_, kSpec);
  }

  Stored StoreSmall(const std::vector<BlockKey>& keys, bool spare_room = false) {
    return Store(small_, kSpec, {.spec = small_spec_, .keys = keys, .spare_room = spare_room});
  }
  uint32_t RunSmall(const std::vector<BlockKey>& keys) { return Run(small_, small_spec_, keys); }
  TenantUse UseOf(const std::string& tenant) {
    for (const TenantUse& use : engine_->Describe(std::nullopt).tenants) {
      if (use.tenant.name == tenant) return use;
    }
    ADD_FAILURE() << "nothing said of " << tenant;
    return {};
  }

  AttachmentId small_;
  SpecHandle small_spec_;
};

TEST_F(Quota, ATenantAtItsQuotaMakesRoomWithItsOwnColdestBlocksAndNobodyElses) {
  ASSERT_EQ(Store(ChainNamed("cold", 24)).commit.committed, 24u);  // the coldest of all
  ASSERT_EQ(StoreSmall(ChainNamed("one", 10)).commit.committed, 10u);
  ASSERT_EQ(StoreSmall(ChainNamed("two", 10)).commit.committed, 10u);
  EXPECT_EQ(RunSmall(ChainNamed("one", 10)), 6u);
  EXPECT_EQ(RunSmall(ChainNamed("two", 10)), 10u);
  EXPECT_EQ(Run(ChainNamed("cold", 24)), 24u);
  EXPECT_EQ(CounterValue("evicted_quota_blocks_total"), 4u);
  EXPECT_EQ(UseOf("small").used_bytes, kQuotaBlocks * kBlockBytes);
  EXPECT_EQ(UseOf("small").quota_bytes, kQuotaBlocks * kBlockBytes);
  EXPECT_EQ(UseOf("default").quota_bytes, TenantQuotas::kNone);
}

TEST_F(Quota, AChainThatIsLongerThanTheQuotaIsStoredAsFarAsItFits) {
  const Stored stored = StoreSmall(ChainNamed("long", 20));
  EXPECT_EQ(stored.commit.committed, kQuotaBlocks);
  EXPECT_EQ(stored.outcomes.back(), ReserveOutcome::kNoSpace);
  EXPECT_EQ(RunSmall(ChainNamed("long", 20)), kQuotaBlocks);
}

TEST_F(Quota, AQuotaCountsAllSpecsOfTheTenantTogether) {
  const CacheSpec larger = SmallSpec(128, 16);
  const uint64_t bytes = LayoutOf(larger).block_bytes;
  const SpecHandle handle = Open(small_, larger);
  ASSERT_EQ(StoreSmall(ChainNamed("one", 12)).commit.committed, 12u);
  const auto chain = ChainNamed("larger", 4);
  ASSERT_EQ(Store(small_, larger, {.spec = handle, .keys = chain}).commit.committed, 4u);
  EXPECT_EQ(Run(small_, handle, chain), 4u);
  EXPECT_LE(UseOf("small").used_bytes, kQuotaBlocks * kBlockBytes);
  EXPECT_EQ(RunSmall(ChainNamed("one", 12)), kQuotaBlocks - 4 * bytes / kBlockBytes);
}

TEST_F(Quota, WhatIsReadOrWrittenIsNotDroppedAndTheRefusalSaysWhoseQuotaItIs) {
  const auto chain = ChainNamed("read", kQuotaBlocks);
  ASSERT_EQ(StoreSmall(chain).commit.committed, kQuotaBlocks);
  const auto lease = engine_->Acquire(small_, {.spec = small_spec_, .keys = chain});
  ASSERT_TRUE(lease.ok());
  const absl::Status refused = StoreSmall(ChainNamed("more", 2)).status;
  EXPECT_EQ(CodeAndReason(refused), "RESOURCE_EXHAUSTED TENANT_QUOTA");
  EXPECT_THAT(std::string(refused.message()), ::testing::HasSubstr("tenant \"small\" has"));
  EXPECT_EQ(RunSmall(chain), kQuotaBlocks);
  engine_->Release(small_, {{lease->lease}}).IgnoreError();
  EXPECT_EQ(StoreSmall(ChainNamed("more", 2)).commit.committed, 2u);
}

TEST_F(Quota, CopiesTakeNoRoomThatSomethingOfTheTenantWouldHaveToGoFor) {
  ASSERT_EQ(StoreSmall(ChainNamed("own", 14)).commit.committed, 14u);
  EXPECT_EQ(StoreSmall(ChainNamed("copy", 6), /*spare_room=*/true).commit.committed, 2u);
  EXPECT_EQ(RunSmall(ChainNamed("own", 14)), 14u);
}

TEST_F(Quota, ExplainSaysThatTheQuotaWasWhy) {
  StoreSmall(ChainNamed("one", 16));
  StoreSmall(ChainNamed("two", 4));
  const auto answer =
      engine_->Explain(Tenant{"small"}, FingerprintOf(kSpec), ChainNamed("one", 16), {});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->reason, MissReason::kEvicted);
  EXPECT_THAT(answer->sentence, ::testing::HasSubstr("at its quota here. Raise the tenant's"));
}

TEST_F(Quota, OneThatIsLessThanABlockSaysSo) {
  TenantQuotas quotas{.default_bytes = kBlockBytes - 1, .named = {}};
  Start(4 * kMiB, /*background_eviction=*/false, std::move(quotas));
  EXPECT_EQ(CodeAndReason(Store(ChainNamed("one", 1)).status),
            "FAILED_PRECONDITION TENANT_QUOTA_BELOW_BLOCK");
}

TEST(TenantQuotas, AreNamesAndSizes) {
  const std::vector<std::string> texts = {"a=64MiB", "spiffe://acme/team=1GiB", "odd=name=7",
                                          "b=0"};
  const absl::StatusOr<TenantQuotas> quotas = ParseTenantQuotas(texts, 5);
  ASSERT_TRUE(quotas.ok()) << quotas.status();
  EXPECT_EQ(quotas->Of(Tenant{"a"}), 64u << 20);
  EXPECT_EQ(quotas->Of(Tenant{"spiffe://acme/team"}), 1u << 30);
  EXPECT_EQ(quotas->Of(Tenant{"odd=name"}), 7u);
  EXPECT_EQ(quotas->Of(Tenant{"b"}), TenantQuotas::kNone);
  EXPECT_EQ(quotas->Of(Tenant{"another"}), 5u);
}

TEST(TenantQuotas, WhatIsNoSuchThingIsNamed) {
  for (const std::string text : {"a", "=1", "a=", "a=-1", "a=1.5GiB", "a=99999999999TiB"}) {
    const std::vector<std::string> texts = {text};
    const absl::Status wrong = ParseTenantQuotas(texts, 0).status();
    EXPECT_EQ(CodeAndReason(wrong), "INVALID_ARGUMENT TENANT_QUOTA") << text;
    EXPECT_THAT(std::string(wrong.message()),
                ::testing::HasSubstr("--tenant-quota " + text + ": "));
  }
  const std::vector<std::string> twice = {"a=1", "a=2"};
  EXPECT_THAT(std::string(ParseTenantQuotas(twice, 0).status().message()),
              ::testing::HasSubstr("named twice"));
}

}  // namespace
}  // namespace reprise::shard
