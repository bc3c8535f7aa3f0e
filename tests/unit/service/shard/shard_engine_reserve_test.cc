#include "tests/unit/service/shard/engine_fixture.h"

namespace reprise::shard {
namespace {

using Reserving = EngineTest;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
constexpr auto kPresent = ReserveOutcome::kPresent;
constexpr auto kGranted = ReserveOutcome::kGranted;
constexpr auto kPending = ReserveOutcome::kPending;
constexpr auto kNoSpace = ReserveOutcome::kNoSpace;

TEST_F(Reserving, WhatIsPresentIsNotGrantedAgain) {
  std::vector<BlockKey> chain = ChainNamed("a", 3);
  EXPECT_THAT(Store({chain[0], chain[1]}).outcomes, ElementsAre(kGranted, kGranted));
  const Stored stored = Store(chain);
  EXPECT_THAT(stored.outcomes, ElementsAre(kPresent, kPresent, kGranted));
  EXPECT_EQ(stored.commit.committed, 1u);
  const auto again = engine_->Reserve(me_, {.spec = spec_, .keys = chain});
  ASSERT_TRUE(again.ok());
  EXPECT_FALSE(again->reservation);
  EXPECT_THAT(again->outcomes, Each(kPresent));
}

TEST_F(Reserving, ASecondWriterIsToldPendingAndGetsNoSlot) {
  const std::vector<BlockKey> chain = ChainNamed("a", 4);
  const auto first = engine_->Reserve(me_, {.spec = spec_, .keys = {chain.data(), 2}});
  ASSERT_TRUE(first.ok());
  const AttachmentId other = Attach("default");
  const SpecHandle spec = Open(other, kSpec);
  const auto second = engine_->Reserve(other, {.spec = spec, .keys = chain});
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_FALSE(second->reservation);
  // What would follow a pending block could not be committed before it.
  EXPECT_THAT(second->outcomes, ElementsAre(kPending, kPending, kNoSpace, kNoSpace));
  EXPECT_EQ(UsedBytes(), 2 * kBlockBytes);
}

TEST_F(Reserving, ReservedBlocksAreInvisibleUntilCommit) {
  const std::vector<BlockKey> chain = ChainNamed("a", 2);
  const auto reserved = engine_->Reserve(me_, {.spec = spec_, .keys = chain});
  ASSERT_TRUE(reserved.ok());
  const std::vector<Checksum128> checksums = {
      Write(me_, reserved->reservation, 0, chain[0], kSpec),
      Write(me_, reserved->reservation, 1, chain[1], kSpec)};
  EXPECT_EQ(Run(chain), 0u);
  EXPECT_EQ(Acquire(chain).run_blocks, 0u);
  ASSERT_TRUE(
      engine_->Commit(me_, {.reservation = reserved->reservation, .checksums = checksums}).ok());
  EXPECT_EQ(Run(chain), 2u);
}

TEST_F(Reserving, AReservationThatIsNotCommittedInTimeGivesItsSlotsBack) {
  const std::vector<BlockKey> chain = ChainNamed("a", 3);
  const auto reserved =
      engine_->Reserve(me_, {.spec = spec_, .keys = chain, .ttl = absl::Seconds(5)});
  ASSERT_TRUE(reserved.ok());
  clock_.Advance(absl::Seconds(5));
  engine_->Tick();
  EXPECT_EQ(UsedBytes(), 0u);
  EXPECT_EQ(CodeAndReason(engine_->OpenWrite(me_, reserved->reservation, 0).status()),
            "NOT_FOUND RESERVATION_UNKNOWN");
  EXPECT_EQ(CodeAndReason(engine_->Commit(me_, {.reservation = reserved->reservation}).status()),
            "NOT_FOUND RESERVATION_UNKNOWN");
  EXPECT_EQ(CounterValue("expired_reservations_total"), 1u);
  EXPECT_EQ(Store(chain).commit.committed, 3u);
}

TEST_F(Reserving, WhatIsCommittedGivesTheRestItsTimeAnewUpToAnAge) {
  const auto ttl = absl::Seconds(50);
  const auto blocks = static_cast<uint32_t>(limits::kReservationAgeMax / ttl) + 2;
  const std::vector<BlockKey> chain = ChainNamed("a", blocks);
  const auto reserved = engine_->Reserve(me_, {.spec = spec_, .keys = chain, .ttl = ttl});
  ASSERT_TRUE(reserved.ok());
  const auto commit = [&](uint32_t block) {
    const std::vector<uint32_t> one = {block};
    const std::vector<Checksum128> checksums = {
        Write(me_, reserved->reservation, block, chain[block], kSpec)};
    return engine_->Commit(
        me_, {.reservation = reserved->reservation, .blocks = one, .checksums = checksums});
  };
  const absl::Time born = clock_.Now();
  const auto wait_until = [&](absl::Time time) {
    while (clock_.Now() < time) {
      clock_.Advance(std::min(limits::kKeepAliveInterval, time - clock_.Now()));
      ASSERT_TRUE(engine_->KeepAlive(me_).ok());
      engine_->Tick();
    }
  };
  uint32_t stored = 0;
  while (clock_.Now() + ttl < born + limits::kReservationAgeMax) {
    ASSERT_TRUE(commit(stored++).ok()) << stored;
    wait_until(clock_.Now() + ttl - absl::Seconds(1));
  }
  ASSERT_TRUE(commit(stored++).ok());
  wait_until(born + limits::kReservationAgeMax);
  EXPECT_EQ(CodeAndReason(engine_->OpenWrite(me_, reserved->reservation, stored).status()),
            "NOT_FOUND RESERVATION_UNKNOWN");
  EXPECT_EQ(Run(chain), stored);
  EXPECT_EQ(CounterValue("expired_reservations_total"), 1u);
}

TEST_F(Reserving, WhatIsOnlyWrittenGivesNoMoreTime) {
  const std::vector<BlockKey> chain = ChainNamed("a", 2);
  const auto reserved =
      engine_->Reserve(me_, {.spec = spec_, .keys = chain, .ttl = absl::Seconds(5)});
  ASSERT_TRUE(reserved.ok());
  clock_.Advance(absl::Seconds(4));
  Write(me_, reserved->reservation, 0, chain[0], kSpec);
  clock_.Advance(absl::Seconds(1));
  engine_->Tick();
  EXPECT_EQ(UsedBytes(), 0u);
}

TEST_F(Reserving, AWriterStillWritingKeepsItsSlotFromOthersAfterItsReservationEnded) {
  const std::vector<BlockKey> chain = ChainNamed("a", 1);
  const auto reserved = engine_->Reserve(me_, {.spec = spec_, .keys = chain});
  ASSERT_TRUE(reserved.ok());
  auto slot = engine_->OpenWrite(me_, reserved->reservation, 0);
  ASSERT_TRUE(slot.ok());
  clock_.Advance(limits::kReservationTtl);
  EXPECT_EQ(Store(chain).commit.committed, 1u);  // in another slot
  std::fill(slot->bytes.begin(), slot->bytes.end(), 0xee);
  ExpectReads(Acquire(chain).lease, chain);
  EXPECT_EQ(UsedBytes(), 2 * kBlockBytes);
  ExpectSound();
  slot->pin.reset();
  EXPECT_EQ(UsedBytes(), kBlockBytes);
}

TEST_F(Reserving, DetachEndsReservations) {
  const AttachmentId other = Attach("default");
  const SpecHandle spec = Open(other, kSpec);
  ASSERT_TRUE(engine_->Reserve(other, {.spec = spec, .keys = ChainNamed("a", 3)}).ok());
  EXPECT_EQ(UsedBytes(), 3 * kBlockBytes);
  engine_->Detach(other);
  EXPECT_EQ(UsedBytes(), 0u);
  EXPECT_EQ(engine_->Describe(Tenant{"default"}).reservations, 0u);
}

TEST_F(Reserving, ArgumentsAtOddsWithEachOtherAreRefused) {
  const std::vector<BlockKey> chain = ChainNamed("a", 2);
  const std::vector<uint32_t> three(3);
  EXPECT_EQ(CodeAndReason(engine_->Reserve(me_, {.spec = spec_}).status()),
            "INVALID_ARGUMENT KEYS_EMPTY");
  EXPECT_EQ(
      CodeAndReason(
          engine_->Reserve(me_, {.spec = spec_, .keys = chain, .token_positions = three}).status()),
      "INVALID_ARGUMENT TOKEN_POSITIONS_LENGTH");
  EXPECT_EQ(CodeAndReason(
                engine_->Reserve(me_, {.spec = spec_, .keys = chain, .token_ids = three}).status()),
            "INVALID_ARGUMENT TOKEN_IDS_LENGTH");
  EXPECT_EQ(
      CodeAndReason(
          engine_->Reserve(me_, {.spec = spec_, .keys = chain, .session_id = std::string(129, 'x')})
              .status()),
      "INVALID_ARGUMENT SESSION_ID_LENGTH");
  const std::vector<BlockKey> too_many(limits::kPromptBlocksMax + 1);
  EXPECT_EQ(CodeAndReason(engine_->Reserve(me_, {.spec = spec_, .keys = too_many}).status()),
            "INVALID_ARGUMENT KEYS_TOO_MANY");
  EXPECT_EQ(CounterValue("refused_invalid_total"), 5u);
}

TEST_F(Reserving, AKeyStoredBeneathAnotherParentIsRefused) {
  const std::vector<BlockKey> a = ChainNamed("a", 2), b = ChainNamed("b", 1);
  Store(a);
  Store(b);
  EXPECT_EQ(CodeAndReason(engine_->Reserve(me_, {.spec = spec_, .keys = {{b[0], a[1]}}}).status()),
            "INVALID_ARGUMENT KEYS_NOT_A_CHAIN");
  EXPECT_EQ(CodeAndReason(engine_->Reserve(me_, {.spec = spec_, .keys = {{a[1]}}}).status()),
            "INVALID_ARGUMENT KEYS_NOT_A_CHAIN");
}

TEST_F(Reserving, AKeyNamedTwiceIsGrantedOnce) {
  const BlockKey a = KeyNamed("a"), b = KeyNamed("b");
  const auto reserved = engine_->Reserve(me_, {.spec = spec_, .keys = {{a, b, a}}});
  ASSERT_TRUE(reserved.ok());
  EXPECT_THAT(reserved->outcomes, ElementsAre(kGranted, kGranted, kPending));
}

TEST_F(Reserving, WhereMemoryIsShortAShorterRunIsGranted) {
  const std::vector<BlockKey> chain = ChainNamed("a", 70);  // the pool has 64 slots
  const auto reserved = engine_->Reserve(me_, {.spec = spec_, .keys = chain});
  ASSERT_TRUE(reserved.ok());
  EXPECT_EQ(std::count(reserved->outcomes.begin(), reserved->outcomes.end(), kGranted), 64);
  EXPECT_EQ(reserved->outcomes[63], kGranted);
  EXPECT_EQ(reserved->outcomes[64], kNoSpace);
  const auto refused = engine_->Reserve(me_, {.spec = spec_, .keys = ChainNamed("b", 1)});
  EXPECT_EQ(CodeAndReason(refused.status()), "RESOURCE_EXHAUSTED NO_SPACE");
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("--dram"));
  EXPECT_EQ(CounterValue("refused_no_space_total"), 1u);
}

TEST_F(Reserving, WritesAreAcceptedOnlyForGrantedBlocks) {
  const std::vector<BlockKey> chain = ChainNamed("a", 2);
  Store({chain[0]});
  const auto reserved = engine_->Reserve(me_, {.spec = spec_, .keys = chain});
  ASSERT_TRUE(reserved.ok());
  const ReservationId id = reserved->reservation;
  EXPECT_EQ(CodeAndReason(engine_->OpenWrite(me_, id, 0).status()),
            "FAILED_PRECONDITION BLOCK_NOT_GRANTED");
  EXPECT_EQ(CodeAndReason(engine_->OpenWrite(me_, id, 9).status()),
            "FAILED_PRECONDITION BLOCK_NOT_GRANTED");
  EXPECT_EQ(CodeAndReason(engine_->Written(me_, id, 1, kBlockBytes + 1)),
            "INVALID_ARGUMENT WRITE_BEYOND_BLOCK");
  EXPECT_TRUE(engine_->Written(me_, id, 1, 10).ok());
  const AttachmentId other = Attach("default");
  EXPECT_EQ(CodeAndReason(engine_->OpenWrite(other, id, 1).status()),
            "NOT_FOUND RESERVATION_UNKNOWN");
}

TEST_F(Reserving, ReservationsBeyondTheLimitAreRefused) {
  Start(32 * kMiB);
  const CacheSpec tiny = SmallSpec(2, 2);
  const SpecHandle spec = Open(me_, tiny);
  for (size_t i = 0; i < limits::kReservationsPerAttachmentMax; ++i) {
    ASSERT_TRUE(
        engine_->Reserve(me_, {.spec = spec, .keys = ChainNamed(absl::StrCat("c", i), 1)}).ok());
  }
  EXPECT_EQ(
      CodeAndReason(engine_->Reserve(me_, {.spec = spec, .keys = ChainNamed("x", 1)}).status()),
      "RESOURCE_EXHAUSTED RESERVATIONS_MAX");
}

}  // namespace
}  // namespace reprise::shard
