#include "tests/unit/service/shard/engine_fixture.h"

namespace reprise::shard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class Committing : public EngineTest {
 protected:
  ReservationId Reserve(const std::vector<BlockKey>& keys) {
    const auto reserved = engine_->Reserve(me_, {.spec = spec_, .keys = keys});
    EXPECT_TRUE(reserved.ok()) << reserved.status();
    return reserved.ok() ? reserved->reservation : ReservationId();
  }
  std::vector<Checksum128> WriteAll(ReservationId id, const std::vector<BlockKey>& keys) {
    std::vector<Checksum128> checksums;
    for (uint32_t i = 0; i < keys.size(); ++i)
      checksums.push_back(Write(me_, id, i, keys[i], kSpec));
    return checksums;
  }
};

TEST_F(Committing, BytesThatDoNotMatchTheirChecksumAreRefusedAndNothingBecomesVisible) {
  const std::vector<BlockKey> chain = ChainNamed("a", 3);
  const ReservationId id = Reserve(chain);
  std::vector<Checksum128> checksums = WriteAll(id, chain);
  const Checksum128 right = checksums[2];
  checksums[2].bytes[0] ^= 1;
  const auto refused = engine_->Commit(me_, {.reservation = id, .checksums = checksums});
  EXPECT_EQ(CodeAndReason(refused.status()), "DATA_LOSS CHECKSUM_MISMATCH");
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("keys[2]"));
  EXPECT_EQ(Run(chain), 0u);
  EXPECT_EQ(CounterValue("corrupt_blocks_total"), 1u);
  ExpectSound();
  // The block that was wrong has to be written again, and only that one.
  checksums[2] = right;
  EXPECT_EQ(
      CodeAndReason(engine_->Commit(me_, {.reservation = id, .checksums = checksums}).status()),
      "FAILED_PRECONDITION BYTES_MISSING");
  Write(me_, id, 2, chain[2], kSpec);
  EXPECT_EQ(engine_->Commit(me_, {.reservation = id, .checksums = checksums})->committed, 3u);
  EXPECT_EQ(Run(chain), 3u);
}

TEST_F(Committing, ABlockWhoseBytesAreMissingIsRefused) {
  const std::vector<BlockKey> chain = ChainNamed("a", 1);
  const ReservationId id = Reserve(chain);
  const std::vector<Checksum128> checksums = WriteAll(id, chain);
  const ReservationId other = Reserve(ChainNamed("b", 1));
  ASSERT_TRUE(engine_->Written(me_, other, 0, kBlockBytes - 1).ok());
  const auto refused = engine_->Commit(me_, {.reservation = other, .checksums = checksums});
  EXPECT_EQ(CodeAndReason(refused.status()), "FAILED_PRECONDITION BYTES_MISSING");
  EXPECT_EQ(CounterValue("refused_not_written_total"), 1u);
}

TEST_F(Committing, AChainMayBeCommittedInParts) {
  const std::vector<BlockKey> chain = ChainNamed("a", 3);
  const ReservationId id = Reserve(chain);
  const std::vector<Checksum128> checksums = WriteAll(id, chain);
  EXPECT_EQ(
      engine_->Commit(me_, {.reservation = id, .blocks = {{0}}, .checksums = {{checksums[0]}}})
          ->committed,
      1u);
  EXPECT_EQ(Run(chain), 1u);
  ExpectSound();
  // In any order.
  EXPECT_EQ(engine_
                ->Commit(me_, {.reservation = id,
                               .blocks = {{2, 1}},
                               .checksums = {{checksums[2], checksums[1]}}})
                ->committed,
            2u);
  EXPECT_EQ(Run(chain), 3u);
  EXPECT_EQ(
      CodeAndReason(engine_->Commit(me_, {.reservation = id, .checksums = checksums}).status()),
      "NOT_FOUND RESERVATION_UNKNOWN");
}

TEST_F(Committing, ABlockIsNotCommittedBeforeItsParent) {
  const std::vector<BlockKey> chain = ChainNamed("a", 3);
  const ReservationId id = Reserve(chain);
  const std::vector<Checksum128> checksums = WriteAll(id, chain);
  EXPECT_EQ(CodeAndReason(engine_
                              ->Commit(me_, {.reservation = id,
                                             .blocks = {{0, 2}},
                                             .checksums = {{checksums[0], checksums[2]}}})
                              .status()),
            "FAILED_PRECONDITION PARENT_MISSING");
  EXPECT_EQ(Run(chain), 0u);
}

TEST_F(Committing, ABlockWhoseParentWasRemovedMeanwhileIsRefused) {
  const std::vector<BlockKey> chain = ChainNamed("a", 2);
  Store({chain[0]});
  const auto reserved = engine_->Reserve(me_, {.spec = spec_, .keys = chain});
  ASSERT_TRUE(reserved.ok());
  const Checksum128 checksum = Write(me_, reserved->reservation, 1, chain[1], kSpec);
  EXPECT_EQ(engine_->Remove(me_, spec_, {{chain[0]}})->removed, 1u);
  Store({ChainNamed("b", 1)});  // may use the record again
  EXPECT_EQ(
      CodeAndReason(
          engine_->Commit(me_, {.reservation = reserved->reservation, .checksums = {{checksum}}})
              .status()),
      "FAILED_PRECONDITION PARENT_MISSING");
  clock_.Advance(limits::kReservationTtl);
  engine_->Tick();
  EXPECT_EQ(UsedBytes(), kBlockBytes);
}

TEST_F(Committing, CommittingABlockTwiceKeepsTheFirstBytes) {
  const std::vector<BlockKey> chain = ChainNamed("a", 2);
  const ReservationId id = Reserve(chain);
  const std::vector<Checksum128> checksums = WriteAll(id, chain);
  ASSERT_TRUE(
      engine_->Commit(me_, {.reservation = id, .blocks = {{0}}, .checksums = {{checksums[0]}}})
          .ok());
  EXPECT_EQ(CodeAndReason(engine_->OpenWrite(me_, id, 0).status()),
            "FAILED_PRECONDITION BLOCK_COMMITTED");
  EXPECT_EQ(CodeAndReason(engine_->Written(me_, id, 0, 1)), "FAILED_PRECONDITION BLOCK_COMMITTED");
  const auto again = engine_->Commit(me_, {.reservation = id, .checksums = checksums});
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->committed, 1u);
  EXPECT_EQ(again->duplicate, 1u);
  ExpectReads(Acquire(chain).lease, chain);
}

TEST_F(Committing, CountsAndIndexesMustAgree) {
  const std::vector<BlockKey> chain = ChainNamed("a", 2);
  const ReservationId id = Reserve(chain);
  const std::vector<Checksum128> checksums = WriteAll(id, chain);
  EXPECT_EQ(CodeAndReason(
                engine_->Commit(me_, {.reservation = id, .checksums = {{checksums[0]}}}).status()),
            "INVALID_ARGUMENT CHECKSUMS_COUNT");
  EXPECT_EQ(
      CodeAndReason(
          engine_->Commit(me_, {.reservation = id, .blocks = {{0, 0}}, .checksums = checksums})
              .status()),
      "INVALID_ARGUMENT BLOCKS_DUPLICATE");
  EXPECT_EQ(
      CodeAndReason(
          engine_->Commit(me_, {.reservation = id, .blocks = {{0, 7}}, .checksums = checksums})
              .status()),
      "FAILED_PRECONDITION BLOCK_NOT_GRANTED");
  const AttachmentId other = Attach("default");
  EXPECT_EQ(
      CodeAndReason(engine_->Commit(other, {.reservation = id, .checksums = checksums}).status()),
      "NOT_FOUND RESERVATION_UNKNOWN");
}

TEST_F(Committing, TheListenerHearsOfTheWholeChainOnce) {
  std::vector<CommittedChain> heard;
  engine_->OnCommitted([&](CommittedChain chain) { heard.push_back(std::move(chain)); });
  const std::vector<BlockKey> chain = ChainNamed("a", 3);
  std::vector<uint32_t> tokens(3 * kSpec.block_tokens);
  for (uint32_t i = 0; i < tokens.size(); ++i) tokens[i] = 100 + i;
  const std::vector<uint32_t> two(tokens.begin(), tokens.begin() + 2 * kSpec.block_tokens);
  Store(me_, kSpec,
        {.spec = spec_, .keys = {chain.data(), 2}, .session_id = "s", .token_ids = two});
  Store(me_, kSpec, {.spec = spec_, .keys = chain, .session_id = "t", .token_ids = tokens});
  ASSERT_EQ(heard.size(), 2u);
  EXPECT_EQ(heard[0].first_new, 0u);
  EXPECT_EQ(heard[0].keys, std::vector<BlockKey>(chain.begin(), chain.begin() + 2));
  EXPECT_EQ(heard[0].token_ids, two);
  EXPECT_EQ(heard[1].first_new, 2u);
  EXPECT_EQ(heard[1].keys, chain);
  EXPECT_EQ(heard[1].token_ids, tokens);
  EXPECT_EQ(heard[1].session_id, "t");
  EXPECT_EQ(heard[1].tenant.name, "default");
  EXPECT_EQ(heard[1].spec, kSpec);
}

TEST_F(Committing, TokensOfAChainAreUnknownWhereAnyBlocksAre) {
  std::vector<CommittedChain> heard;
  engine_->OnCommitted([&](CommittedChain chain) { heard.push_back(std::move(chain)); });
  const std::vector<BlockKey> chain = ChainNamed("a", 2);
  Store({chain[0]});
  const std::vector<uint32_t> tokens(2 * kSpec.block_tokens, 5);
  Store(me_, kSpec, {.spec = spec_, .keys = chain, .token_ids = tokens});
  ASSERT_EQ(heard.size(), 2u);
  EXPECT_THAT(heard[1].token_ids, IsEmpty());
}

TEST_F(Committing, ReplicasAreNotHandedOn) {
  int heard = 0;
  engine_->OnCommitted([&](CommittedChain) { ++heard; });
  Store(me_, kSpec, {.spec = spec_, .keys = ChainNamed("a", 2), .replica = true});
  EXPECT_EQ(heard, 0);
}

}  // namespace
}  // namespace reprise::shard
