#include "tests/unit/service/shard/engine_fixture.h"

namespace reprise::shard {
namespace {

using Leases = EngineTest;
using ::testing::HasSubstr;

TEST_F(Leases, WhatWasStoredIsFoundAndReadBackByteForByte) {
  const std::vector<BlockKey> chain = ChainNamed("a", 5);
  EXPECT_EQ(Store(chain).commit.committed, 5u);
  std::vector<BlockKey> longer = chain;
  longer.push_back(KeyNamed("beyond"));
  EXPECT_EQ(Run(longer), 5u);
  const AcquireResult acquired = Acquire(longer);
  EXPECT_EQ(acquired.run_blocks, 5u);
  ASSERT_EQ(acquired.checksums.size(), 5u);
  ExpectReads(acquired.lease, chain);
}

TEST_F(Leases, NothingIsFoundOrLeasedWhereNothingIsStored) {
  const AcquireResult acquired = Acquire(ChainNamed("never", 3));
  EXPECT_FALSE(acquired.lease);
  EXPECT_EQ(acquired.run_blocks, 0u);
  EXPECT_EQ(Run({}), 0u);
  EXPECT_FALSE(Acquire({}).lease);
}

TEST_F(Leases, OnlyBlocksFromFirstBlockOnAreLeased) {
  const std::vector<BlockKey> chain = ChainNamed("a", 4);
  Store(chain);
  const auto acquired = engine_->Acquire(me_, {.spec = spec_, .keys = chain, .first_block = 3});
  ASSERT_TRUE(acquired.ok());
  EXPECT_EQ(acquired->run_blocks, 4u);
  EXPECT_EQ(acquired->checksums.size(), 1u);
  EXPECT_EQ(CodeAndReason(engine_->OpenRead(me_, acquired->lease, 2, 1).status()),
            "OUT_OF_RANGE BLOCK_NOT_LEASED");
  EXPECT_EQ(CodeAndReason(engine_->OpenRead(me_, acquired->lease, 3, 2).status()),
            "OUT_OF_RANGE BLOCK_NOT_LEASED");
  EXPECT_TRUE(engine_->OpenRead(me_, acquired->lease, 3, 1).ok());
  const auto nothing = engine_->Acquire(me_, {.spec = spec_, .keys = chain, .first_block = 4});
  ASSERT_TRUE(nothing.ok());
  EXPECT_FALSE(nothing->lease);
  EXPECT_EQ(nothing->run_blocks, 4u);
}

TEST_F(Leases, KeysOfTwoChainsAreNoRun) {
  const std::vector<BlockKey> a = ChainNamed("a", 3), b = ChainNamed("b", 3);
  Store(a);
  Store(b);
  EXPECT_EQ(Acquire({a[0], b[1], a[2]}).run_blocks, 1u);
  EXPECT_EQ(Acquire({a[1], a[2]}).run_blocks, 0u);
}

TEST_F(Leases, ALeaseEndsWhenItsTimeIsUp) {
  const std::vector<BlockKey> chain = ChainNamed("a", 2);
  Store(chain);
  const LeaseId lease = Acquire(chain, absl::Seconds(3)).lease;
  clock_.Advance(absl::Milliseconds(2999));
  EXPECT_TRUE(engine_->OpenRead(me_, lease, 0, 0).ok());
  clock_.Advance(absl::Milliseconds(1));
  EXPECT_EQ(CodeAndReason(engine_->OpenRead(me_, lease, 0, 0).status()), "NOT_FOUND LEASE_UNKNOWN");
  EXPECT_EQ(CounterValue("expired_leases_total"), 1u);
}

TEST_F(Leases, KeepAlivesExtendALeaseUpToItsGreatestAge) {
  const std::vector<BlockKey> chain = ChainNamed("a", 1);
  Store(chain);
  const absl::Time born = clock_.Now();
  const LeaseId lease = Acquire(chain).lease;
  while (clock_.Now() - born < limits::kLeaseAgeMax - limits::kKeepAliveInterval) {
    clock_.Advance(limits::kKeepAliveInterval);
    ASSERT_TRUE(engine_->KeepAlive(me_).ok());
    engine_->Tick();
    ASSERT_TRUE(engine_->OpenRead(me_, lease, 0, 0).ok()) << clock_.Now() - born;
  }
  clock_.Advance(limits::kKeepAliveInterval);
  ASSERT_TRUE(engine_->KeepAlive(me_).ok());
  EXPECT_EQ(CodeAndReason(engine_->OpenRead(me_, lease, 0, 0).status()), "NOT_FOUND LEASE_UNKNOWN");
}

TEST_F(Leases, AKeepAliveDoesNotReviveALeaseThatIsOver) {
  const std::vector<BlockKey> chain = ChainNamed("a", 1);
  Store(chain);
  const LeaseId lease = Acquire(chain, absl::Seconds(1)).lease;
  clock_.Advance(absl::Seconds(2));
  ASSERT_TRUE(engine_->KeepAlive(me_).ok());
  EXPECT_FALSE(engine_->OpenRead(me_, lease, 0, 0).ok());
}

TEST_F(Leases, ATimeToLiveBeyondTheLimitIsCutToIt) {
  const std::vector<BlockKey> chain = ChainNamed("a", 1);
  Store(chain);
  const LeaseId lease = Acquire(chain, absl::Hours(9)).lease;
  clock_.Advance(limits::kLeaseTtlMax);
  EXPECT_FALSE(engine_->OpenRead(me_, lease, 0, 0).ok());
}

TEST_F(Leases, ReleaseEndsLeasesAndIgnoresThoseThatAreOver) {
  const std::vector<BlockKey> chain = ChainNamed("a", 2);
  Store(chain);
  const std::vector<LeaseId> leases = {Acquire(chain).lease, LeaseId(999), Acquire(chain).lease};
  EXPECT_EQ(engine_->Release(me_, leases).value(), 2u);
  EXPECT_EQ(engine_->Release(me_, leases).value(), 0u);
  EXPECT_EQ(engine_->Describe(Tenant{"default"}).leases, 0u);
}

TEST_F(Leases, ALeaseBelongsToItsAttachment) {
  const std::vector<BlockKey> chain = ChainNamed("a", 2);
  Store(chain);
  const LeaseId lease = Acquire(chain).lease;
  const AttachmentId other = Attach("default");
  EXPECT_EQ(CodeAndReason(engine_->OpenRead(other, lease, 0, 0).status()),
            "NOT_FOUND LEASE_UNKNOWN");
  EXPECT_EQ(engine_->Release(other, {{lease}}).value(), 0u);
  EXPECT_TRUE(engine_->OpenRead(me_, lease, 0, 0).ok());
}

TEST_F(Leases, APinKeepsTheBytesAfterTheLeaseEnds) {
  const std::vector<BlockKey> chain = ChainNamed("a", 2);
  Store(chain);
  const LeaseId lease = Acquire(chain).lease;
  auto opened = engine_->OpenRead(me_, lease, 0, 0);
  ASSERT_TRUE(opened.ok());
  EXPECT_EQ(engine_->Release(me_, {{lease}}).value(), 1u);
  EXPECT_EQ(engine_->Remove(me_, spec_, chain)->removed, 2u);
  EXPECT_EQ(Run(chain), 0u);
  EXPECT_EQ(UsedBytes(), 2 * kBlockBytes);
  for (size_t i = 0; i < 2; ++i) EXPECT_TRUE(HasContent(chain[i], kSeed, (*opened)[i].bytes));
  ExpectSound();
  opened->clear();
  EXPECT_EQ(UsedBytes(), 0u);
}

TEST_F(Leases, APinMayOutliveTheEngine) {
  const std::vector<BlockKey> chain = ChainNamed("a", 1);
  Store(chain);
  auto opened = engine_->OpenRead(me_, Acquire(chain).lease, 0, 0);
  ASSERT_TRUE(opened.ok());
  engine_ = nullptr;
  EXPECT_TRUE(HasContent(chain[0], kSeed, (*opened)[0].bytes));
}

TEST_F(Leases, HitsAndMissesAreCountedInBlocksAndTokens) {
  std::vector<BlockKey> chain = ChainNamed("a", 3);
  Store(chain);
  chain.push_back(KeyNamed("beyond"));
  Acquire(chain);
  EXPECT_EQ(CounterValue("hit_blocks_total"), 3u);
  EXPECT_EQ(CounterValue("miss_blocks_total"), 1u);
  EXPECT_EQ(CounterValue("hit_tokens_total"), 3u * kSpec.block_tokens);
  EXPECT_EQ(CounterValue("miss_tokens_total"), 1u * kSpec.block_tokens);
}

TEST_F(Leases, UnknownAttachmentsAndSpecsAreRefusedByName) {
  const std::vector<BlockKey> chain = ChainNamed("a", 1);
  const AttachmentId nobody(12345);
  const std::string unknown = "NOT_FOUND ATTACHMENT_UNKNOWN";
  EXPECT_EQ(CodeAndReason(engine_->Lookup(nobody, spec_, chain).status()), unknown);
  EXPECT_EQ(CodeAndReason(engine_->Acquire(nobody, {.spec = spec_, .keys = chain}).status()),
            unknown);
  EXPECT_EQ(CodeAndReason(engine_->Release(nobody, {}).status()), unknown);
  EXPECT_EQ(CodeAndReason(engine_->Reserve(nobody, {.spec = spec_, .keys = chain}).status()),
            unknown);
  EXPECT_EQ(CodeAndReason(engine_->Commit(nobody, {}).status()), unknown);
  EXPECT_EQ(CodeAndReason(engine_->Remove(nobody, spec_, chain).status()), unknown);
  EXPECT_EQ(CodeAndReason(engine_->KeepAlive(nobody)), unknown);
  EXPECT_EQ(CodeAndReason(engine_->OpenRead(nobody, LeaseId(1), 0, 0).status()), unknown);
  EXPECT_EQ(CodeAndReason(engine_->OpenWrite(nobody, ReservationId(1), 0).status()), unknown);
  EXPECT_EQ(CodeAndReason(engine_->Written(nobody, ReservationId(1), 0, 1)), unknown);
  EXPECT_EQ(CodeAndReason(engine_->Lookup(me_, SpecHandle(99), chain).status()),
            "NOT_FOUND SPEC_UNKNOWN");
  EXPECT_EQ(CodeAndReason(engine_->Lookup(me_, SpecHandle(), chain).status()),
            "NOT_FOUND SPEC_UNKNOWN");
}

TEST_F(Leases, LeasesBeyondTheLimitAreRefused) {
  const std::vector<BlockKey> chain = ChainNamed("a", 1);
  Store(chain);
  for (size_t i = 0; i < limits::kLeasesPerAttachmentMax; ++i) ASSERT_TRUE(Acquire(chain).lease);
  const auto refused = engine_->Acquire(me_, {.spec = spec_, .keys = chain});
  EXPECT_EQ(CodeAndReason(refused.status()), "RESOURCE_EXHAUSTED LEASES_MAX");
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("kLeasesPerAttachmentMax"));
}

}  // namespace
}  // namespace reprise::shard
