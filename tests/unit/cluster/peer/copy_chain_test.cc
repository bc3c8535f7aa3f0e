#include "cluster/peer/copy_chain.h"

#include <gtest/gtest.h>

#include "tests/unit/cluster/peer/fake_peers.h"

namespace reprise::cluster {
namespace {

class CopyChainTest : public ::testing::Test {
 protected:
  CopyOutcome Copy() {
    FakeLink link(peer_, {"peer"});
    return CopyChain(link, source_, job_, {});
  }
  void GivePeer(size_t blocks) {
    absl::MutexLock lock(&peer_.mu);
    peer_.stored.insert(job_.keys.begin(), job_.keys.begin() + static_cast<ptrdiff_t>(blocks));
  }
  void LimitRoom(size_t blocks) {
    absl::MutexLock lock(&peer_.mu);
    peer_.room_blocks = blocks;
  }
  std::set<BlockKey> FirstKeys(size_t blocks) const {
    return {job_.keys.begin(), job_.keys.begin() + static_cast<ptrdiff_t>(blocks)};
  }

  ReplicationJob job_ = {.tenant = {kDefaultTenant},
                         .spec = testing::SmallSpec(),
                         .session_id = "chat",
                         .keys = testing::ChainNamed("chat", 8)};
  FakePeer peer_;
  FakeSource source_;
};

TEST_F(CopyChainTest, APeerThatLacksAllGetsAllWithTheClientsChecksums) {
  const auto [copied, status] = Copy();
  ASSERT_EQ(status, absl::OkStatus());
  EXPECT_EQ(copied.blocks, 8u);
  EXPECT_EQ(copied.bytes, 8 * kFakeBlockBytes);
  EXPECT_EQ(peer_.Stored(), FirstKeys(8));
  absl::MutexLock lock(&peer_.mu);
  ASSERT_EQ(peer_.reserves.size(), 1u);
  EXPECT_EQ(peer_.reserves[0].session, "chat") << "the session goes along";
}

TEST_F(CopyChainTest, OnlyTheBlocksAfterWhatIsThereAreWritten) {
  GivePeer(5);
  const auto [copied, status] = Copy();
  ASSERT_EQ(status, absl::OkStatus());
  EXPECT_EQ(copied.blocks, 3u);
  absl::MutexLock lock(&peer_.mu);
  EXPECT_EQ(peer_.written.size(), 3u);
}

TEST_F(CopyChainTest, APeerThatHasAllIsNotWrittenToAndNothingIsLeasedHere) {
  GivePeer(8);
  const auto [copied, status] = Copy();
  ASSERT_EQ(status, absl::OkStatus());
  EXPECT_EQ(copied.blocks, 0u);
  EXPECT_EQ(source_.opened(), 0);
}

TEST_F(CopyChainTest, TheClaimsOnAChainGoAlongAlsoWhereTheBlocksAreAlready) {
  job_.claims = {
      {.hint = {.verb = HintVerb::kPin, .claim_id = "prompt", .ttl = absl::Hours(1)}, .blocks = 3},
      {.hint = {.claim_id = "agent", .priority = 70, .ttl = absl::Minutes(1)}, .blocks = 8}};
  for (int copies = 1; copies <= 2; ++copies) {
    EXPECT_EQ(Copy().status, absl::OkStatus());
    absl::MutexLock lock(&peer_.mu);
    ASSERT_EQ(peer_.claims.size(), 2u * copies);
    EXPECT_EQ(peer_.claims[0].hint.claim_id, "prompt");
    EXPECT_EQ(peer_.claims[0].blocks, 3u);
    EXPECT_EQ(peer_.claims[1].hint.priority, 70u);
    EXPECT_EQ(peer_.claims[1].blocks, 8u);
    EXPECT_TRUE(peer_.claims[1].hint.unless_claimed) << "what the peer was told since is newer";
  }
}

TEST_F(CopyChainTest, APeerThatTakesNoClaimsHasItsCopyAllTheSame) {
  job_.claims = {{.hint = {.claim_id = "agent", .ttl = absl::Minutes(1)}, .blocks = 8}};
  {
    absl::MutexLock lock(&peer_.mu);
    peer_.hint = absl::ResourceExhaustedError("claims keep all that they may");
  }
  EXPECT_EQ(Copy().status, absl::OkStatus());
  EXPECT_EQ(peer_.Stored(), FirstKeys(8));
}

TEST_F(CopyChainTest, WhatIsLeftHereOfAShortenedChainIsCopied) {
  source_.KeepOnly(3);
  const auto [copied, status] = Copy();
  ASSERT_EQ(status, absl::OkStatus());
  EXPECT_EQ(copied.blocks, 3u);
  EXPECT_EQ(peer_.Stored(), FirstKeys(3));
}

TEST_F(CopyChainTest, AChainThatIsGoneHereIsNotFound) {
  GivePeer(2);
  source_.KeepOnly(2);
  const auto [copied, status] = Copy();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
  EXPECT_EQ(RefusalReason(status), kChainGone);
  EXPECT_EQ(peer_.Stored(), FirstKeys(2));
}

TEST_F(CopyChainTest, APeerWithLessRoomKeepsAPrefixAndSaysSo) {
  GivePeer(2);
  LimitRoom(3);
  const auto [copied, status] = Copy();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(RefusalReason(status), "PEER_FULL");
  EXPECT_EQ(peer_.Stored(), FirstKeys(5)) << "a prefix, no hole";
}

TEST_F(CopyChainTest, AFullPeerIsNotWrittenToAtAll) {
  LimitRoom(0);
  EXPECT_EQ(Copy().status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(peer_.Stored().empty());
  EXPECT_EQ(source_.opened(), 0);
}

TEST_F(CopyChainTest, NothingIsCommittedAfterAWriteThatFailed) {
  {
    absl::MutexLock lock(&peer_.mu);
    peer_.write = absl::UnavailableError("the stream broke");
  }
  EXPECT_EQ(Copy().status.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(peer_.Stored().empty());
}

// A batch is kDeviceStoreBatchBytes, so that the blocks of this spec are one each.
TEST_F(CopyChainTest, WhatCameBeforeALinkBrokeIsKeptAndTheRestFollows) {
  {
    absl::MutexLock lock(&peer_.mu);
    peer_.block_bytes = limits::kDeviceStoreBatchBytes;
    peer_.writes_until_it_breaks = 3;
  }
  const auto [copied, status] = Copy();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_EQ(copied.blocks, 3u);
  EXPECT_EQ(peer_.Stored(), FirstKeys(3));
  const auto [rest, rest_status] = Copy();
  EXPECT_EQ(rest_status, absl::OkStatus());
  EXPECT_EQ(rest.blocks, 5u);
  EXPECT_EQ(peer_.Stored(), FirstKeys(8));
}

}  // namespace
}  // namespace reprise::cluster
