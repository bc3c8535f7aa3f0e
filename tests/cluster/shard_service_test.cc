// Every verb of ShardService against a real server, over a link as clients use it.

#include "service/shard/shard_service.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/types/refusal.h"
#include "proto/wire/serving.h"
#include "proto/wire/spec.h"
#include "reprise/v1/shard.grpc.pb.h"
#include "tests/support/loopback_shard.h"

namespace reprise::testing {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

class ShardServiceTest : public ::testing::Test {
 protected:
  ~ShardServiceTest() override {
    link_.reset();
    EXPECT_TRUE(shard_.AwaitIdle());
    EXPECT_EQ(shard_.engine().CheckInvariants(), absl::OkStatus());
  }
  cluster::OpenedSpec Open() { return *link_->OpenSpec(spec_, Soon()); }

  LoopbackShard shard_;
  std::unique_ptr<cluster::ShardLink> link_ = shard_.Connect();
  const CacheSpec spec_ = SpecOf(8192);
};

TEST_F(ShardServiceTest, WhatWasStoredIsReadBackByteForByte) {
  for (const uint64_t block_bytes : {512ull, 65'536ull, 1ull << 20, 3ull << 19}) {
    const CacheSpec spec = SpecOf(block_bytes, absl::StrCat("model-", block_bytes));
    const std::vector<BlockKey> keys = ChainNamed(absl::StrCat(block_bytes), 5);
    EXPECT_EQ(*StoreChain(*link_, spec, keys), 5u);
    EXPECT_EQ(*FetchChain(*link_, spec, keys), 5u);
  }
}

TEST_F(ShardServiceTest, LanesOfANewerVersionArePassedOver) {
  const auto stub = shard_.Stub();
  grpc::ClientContext context;
  const auto stream = stub->Attach(&context);
  v1::AttachRequest hello;
  hello.mutable_hello()->add_lanes(static_cast<v1::LaneKind>(99));
  hello.mutable_hello()->add_lanes(v1::LANE_KIND_STREAM);
  v1::AttachResponse answer;
  ASSERT_TRUE(stream->Write(hello) && stream->Read(&answer));
  EXPECT_THAT(answer.welcome().lanes(), ElementsAre(v1::LANE_KIND_STREAM));
  context.TryCancel();
  stream->Finish();
}

TEST_F(ShardServiceTest, AnOpenedSpecSaysHowLargeItsBlocksAre) {
  const cluster::OpenedSpec opened = Open();
  EXPECT_EQ(opened.block_bytes, LayoutOf(spec_).block_bytes);
  EXPECT_EQ(opened.fingerprint, FingerprintOf(spec_));
  EXPECT_EQ(opened.replication, 1u);
}

TEST_F(ShardServiceTest, AnotherLinkFindsWhatThisOneStored) {
  const std::vector<BlockKey> keys = ChainNamed("shared", 6);
  ASSERT_EQ(*StoreChain(*link_, spec_, keys), 6u);
  link_.reset();
  link_ = shard_.Connect("another");
  EXPECT_EQ(*link_->Lookup(Open().handle, keys, Soon()), 6u);
  EXPECT_EQ(*FetchChain(*link_, spec_, keys), 6u);
}

TEST_F(ShardServiceTest, APrefixIsFoundAsFarAsItIsStored) {
  const std::vector<BlockKey> keys = ChainNamed("prefix", 8);
  ASSERT_TRUE(StoreChain(*link_, spec_, std::span(keys).first(5)).ok());
  EXPECT_EQ(*link_->Lookup(Open().handle, keys, Soon()), 5u);
  const cluster::AcquiredRun run = *link_->Acquire(Open().handle, keys, 2, Soon());
  EXPECT_EQ(run.run_blocks, 5u);
  EXPECT_EQ(run.checksums.size(), 3u);
  EXPECT_THAT(run.tiers, ElementsAre(TierRun{Tier::kDram, 3}));
  ContentSink sink({keys.begin() + 3, keys.begin() + 5}, Open().block_bytes);
  EXPECT_TRUE(link_->lane().Read({run.lease, 3, 2, Open().block_bytes}, sink, Soon()).ok());
  EXPECT_EQ(sink.completed, 2u);
  EXPECT_EQ(sink.wrong, 0u);
}

TEST_F(ShardServiceTest, WhatIsPresentIsNotWrittenAgain) {
  const std::vector<BlockKey> keys = ChainNamed("twice", 4);
  ASSERT_TRUE(StoreChain(*link_, spec_, keys).ok());
  const cluster::ReservedRun again = *link_->Reserve({.spec = Open().handle, .keys = keys}, Soon());
  EXPECT_FALSE(again.reservation);
  EXPECT_THAT(again.outcomes, Each(ReserveOutcome::kPresent));
}

TEST_F(ShardServiceTest, ASecondWriterIsToldToSkip) {
  const std::vector<BlockKey> keys = ChainNamed("race", 3);
  const auto second = shard_.Connect("second");
  const SpecHandle handle = second->OpenSpec(spec_, Soon())->handle;
  ASSERT_TRUE(link_->Reserve({.spec = Open().handle, .keys = keys}, Soon()).ok());
  EXPECT_THAT(second->Reserve({.spec = handle, .keys = keys}, Soon())->outcomes,
              Each(ReserveOutcome::kPending));
}

TEST_F(ShardServiceTest, ACommitThatIsNotWaitedForIsAnsweredAllTheSame) {
  const std::vector<BlockKey> keys = ChainNamed("started", 4);
  const cluster::OpenedSpec opened = Open();
  const cluster::ReservedRun reserved =
      *link_->Reserve({.spec = opened.handle, .keys = keys}, Soon());
  ContentSource source(keys, opened.block_bytes);
  const std::vector<uint32_t> all = {0, 1, 2, 3};
  ASSERT_TRUE(
      link_->lane().Write({reserved.reservation, all, opened.block_bytes}, source, Soon()).ok());
  const std::vector<Checksum128> checksums = ChecksumsOf(keys, spec_);
  const auto start = [&](std::span<const uint32_t> blocks, absl::Time deadline) {
    return link_->StartCommit(reserved.reservation, blocks,
                              std::span(checksums).subspan(blocks.front(), blocks.size()),
                              deadline);
  };
  const auto first = start(std::span(all).first(2), Soon());
  const absl::StatusOr<cluster::CommittedRun> committed = first->Await(Soon());
  ASSERT_TRUE(committed.ok()) << committed.status();
  EXPECT_EQ(committed->committed, 2u);
  EXPECT_EQ(start(std::span(all).subspan(2), absl::Now() - absl::Seconds(1))
                ->Await(Soon())
                .status()
                .code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(*link_->Lookup(opened.handle, keys, Soon()), 2u) << "that one was never made";
  // One that nobody waits for is given up, also with the link that it was made by.
  start(std::span(all).subspan(2), Soon()).reset();
  auto last = start(std::span(all).subspan(2), Soon());
  const absl::StatusOr<cluster::CommittedRun> rest = last->Await(Soon());
  EXPECT_TRUE(rest.ok() || absl::IsFailedPrecondition(rest.status()) ||
              absl::IsNotFound(rest.status()))
      << rest.status();
}

TEST_F(ShardServiceTest, BytesThatDoNotMatchTheirChecksumAreNeverSeen) {
  const std::vector<BlockKey> keys = ChainNamed("corrupt", 2);
  const std::vector<BlockKey> other = ChainNamed("other content", 2);
  const cluster::OpenedSpec opened = Open();
  const cluster::ReservedRun reserved =
      *link_->Reserve({.spec = opened.handle, .keys = keys}, Soon());
  ContentSource source(other, opened.block_bytes);
  const std::vector<uint32_t> blocks = {0, 1};
  ASSERT_TRUE(
      link_->lane().Write({reserved.reservation, blocks, opened.block_bytes}, source, Soon()).ok());
  const absl::Status status =
      link_->Commit(reserved.reservation, blocks, ChecksumsOf(keys, spec_), Soon()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(*link_->Lookup(opened.handle, keys, Soon()), 0u);
}

TEST_F(ShardServiceTest, BlocksThatWereNotWrittenCannotBeCommitted) {
  const std::vector<BlockKey> keys = ChainNamed("unwritten", 2);
  const cluster::ReservedRun reserved =
      *link_->Reserve({.spec = Open().handle, .keys = keys}, Soon());
  const std::vector<uint32_t> blocks = {0, 1};
  EXPECT_EQ(
      link_->Commit(reserved.reservation, blocks, ChecksumsOf(keys, spec_), Soon()).status().code(),
      absl::StatusCode::kFailedPrecondition);
}

TEST_F(ShardServiceTest, ALeaseThatWasReleasedReadsNothing) {
  const std::vector<BlockKey> keys = ChainNamed("released", 2);
  ASSERT_TRUE(StoreChain(*link_, spec_, keys).ok());
  const cluster::AcquiredRun run = *link_->Acquire(Open().handle, keys, 0, Soon());
  ASSERT_TRUE(link_->Release(run.lease, Soon()).ok());
  ContentSink sink(keys, Open().block_bytes);
  EXPECT_EQ(link_->lane().Read({run.lease, 0, 2, Open().block_bytes}, sink, Soon()).code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(sink.completed, 0u);
}

TEST_F(ShardServiceTest, LeasesAndReservationsEndWithTheirStream) {
  const std::vector<BlockKey> keys = ChainNamed("ends", 3);
  ASSERT_TRUE(StoreChain(*link_, spec_, keys).ok());
  {
    const auto other = shard_.Connect("short-lived");
    const SpecHandle handle = other->OpenSpec(spec_, Soon())->handle;
    ASSERT_TRUE(other->Acquire(handle, keys, 0, Soon())->lease);
    ASSERT_TRUE(other->Reserve({.spec = handle, .keys = ChainNamed("other", 2)}, Soon()).ok());
    EXPECT_EQ(shard_.engine().Describe(Tenant{"default"}).attachments, 2u);
  }
  link_.reset();
  EXPECT_TRUE(shard_.AwaitIdle());
  EXPECT_EQ(shard_.engine().Describe(Tenant{"default"}).blocks, 3u);
}

TEST_F(ShardServiceTest, RemoveDropsABlockAndWhatHangsFromIt) {
  const std::vector<BlockKey> keys = ChainNamed("removed", 5);
  ASSERT_TRUE(StoreChain(*link_, spec_, keys).ok());
  const auto stub = shard_.Stub();
  const RawAttachment attachment(*stub);
  v1::OpenSpecRequest open;
  open.set_attachment_id(attachment.id());
  *open.mutable_spec() = wire::ToMessage(spec_);
  v1::OpenSpecResponse opened;
  grpc::ClientContext open_context;
  ASSERT_TRUE(stub->OpenSpec(&open_context, open, &opened).ok());
  v1::RemoveRequest remove;
  remove.set_attachment_id(attachment.id());
  remove.set_spec_handle(opened.spec_handle());
  remove.set_keys(PackKeys(std::span(keys).subspan(2, 1)));
  v1::RemoveResponse removed;
  grpc::ClientContext remove_context;
  ASSERT_TRUE(stub->Remove(&remove_context, remove, &removed).ok());
  EXPECT_EQ(removed.removed(), 3u);
  EXPECT_EQ(*link_->Lookup(Open().handle, keys, Soon()), 2u);
}

TEST_F(ShardServiceTest, HintsAreCarriedOutAndAnswered) {
  const std::vector<BlockKey> keys = ChainNamed("hinted", 5);
  ASSERT_TRUE(StoreChain(*link_, spec_, std::span(keys).first(4)).ok());
  const auto ask = [&](std::span<const BlockKey> about, const Hint& hint) {
    return link_->Hint({.spec = Open().handle, .keys = about, .hint = hint}, Soon());
  };
  const auto pinned =
      ask(keys, {.verb = HintVerb::kPin, .claim_id = "agent", .ttl = absl::Minutes(1)});
  ASSERT_TRUE(pinned.ok()) << pinned.status();
  EXPECT_EQ(pinned->outcome, HintOutcome::kDeferred);
  EXPECT_EQ(pinned->blocks, 4u);
  EXPECT_EQ(pinned->ttl, absl::Minutes(1));
  EXPECT_FALSE(pinned->why.empty());
  v1::ShardServiceDescribeResponse response;
  grpc::ClientContext context;
  ASSERT_TRUE(shard_.Stub()->Describe(&context, {}, &response).ok());
  EXPECT_EQ(response.claims().claims(), 1u);
  EXPECT_GE(response.claims().pinned_bytes(), 4 * LayoutOf(spec_).block_bytes);
  EXPECT_GT(response.claims().pinned_bytes_max(), 0u);
  EXPECT_GT(response.claims().claimed_bytes_max(), response.claims().pinned_bytes_max());
  EXPECT_EQ(ask(keys, {.verb = HintVerb::kEvict})->outcome, HintOutcome::kClipped);
  EXPECT_EQ(ask({}, {.verb = HintVerb::kRelease, .claim_id = "agent"})->blocks, 4u);
  EXPECT_EQ(ask({}, {.verb = HintVerb::kRelease, .claim_id = "agent"})->outcome,
            HintOutcome::kMissing);
  const auto evicted = ask(keys, {.verb = HintVerb::kEvict, .first_block = 1});
  EXPECT_EQ(evicted->outcome, HintOutcome::kApplied);
  EXPECT_EQ(evicted->blocks, 3u);
  EXPECT_EQ(*link_->Lookup(Open().handle, keys, Soon()), 1u);
}

TEST_F(ShardServiceTest, ExplainNamesTheFirstMiss) {
  const std::vector<BlockKey> keys = ChainNamed("explained", 4);
  ASSERT_TRUE(StoreChain(*link_, spec_, std::span(keys).first(2)).ok());
  v1::ExplainRequest request;
  request.set_fingerprint(wire::ToBytes(FingerprintOf(spec_)));
  request.set_keys(PackKeys(keys));
  v1::ExplainResponse response;
  grpc::ClientContext context;
  ASSERT_TRUE(shard_.Stub()->Explain(&context, request, &response).ok());
  EXPECT_EQ(response.shard_id(), "shard-t");
  EXPECT_EQ(response.run_blocks(), 2u);
  EXPECT_EQ(response.miss_block(), 2u);
  EXPECT_EQ(response.reason(), v1::MISS_REASON_NEVER_STORED);
  EXPECT_FALSE(response.sentence().empty());
}

TEST_F(ShardServiceTest, DescribeShowsEveryLimitAndWhatIsStored) {
  ASSERT_TRUE(StoreChain(*link_, spec_, ChainNamed("described", 3)).ok());
  v1::ShardServiceDescribeResponse response;
  grpc::ClientContext context;
  ASSERT_TRUE(shard_.Stub()->Describe(&context, {}, &response).ok());
  EXPECT_EQ(response.shard_id(), "shard-t");
  EXPECT_FALSE(response.version().empty());
  EXPECT_NE(response.incarnation(), 0u);
  EXPECT_EQ(response.blocks(), 3u);
  EXPECT_EQ(response.attachments(), 1u);
  ASSERT_EQ(response.specs_size(), 1);
  EXPECT_EQ(wire::FromMessage(response.specs(0).spec()), spec_);
  ASSERT_EQ(response.tiers_size(), 1);
  EXPECT_GE(response.tiers(0).used_bytes(), 3 * LayoutOf(spec_).block_bytes);
  for (const auto& limit : response.limits()) EXPECT_GT(limit.value(), 0u) << limit.name();
  EXPECT_GT(response.limits_size(), 20);
  EXPECT_GT(response.counters_size(), 10);
}

TEST_F(ShardServiceTest, ADrainingShardIsReadAndNotWritten) {
  const std::vector<BlockKey> keys = ChainNamed("drained", 3);
  ASSERT_TRUE(StoreChain(*link_, spec_, keys).ok());
  shard_.server().StartDraining();
  const absl::Status refused =
      link_->Reserve({.spec = Open().handle, .keys = ChainNamed("new", 1)}, Soon()).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(RefusalReason(refused), "DRAINING");
  EXPECT_EQ(*FetchChain(*link_, spec_, keys), 3u);
  while (!link_->draining()) std::this_thread::yield();
  EXPECT_TRUE(link_->alive());
}

TEST_F(ShardServiceTest, AStoppedShardEndsItsLinks) {
  shard_.server().Stop(absl::ZeroDuration());
  while (link_->alive()) std::this_thread::yield();
  EXPECT_EQ(link_->Lookup(SpecHandle(1), ChainNamed("gone", 1), Soon()).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(link_->OpenSpec(spec_, Soon()).status().code(), absl::StatusCode::kUnavailable);
}

TEST(ShardLinkTest, AShardThatIsNotThereIsUnavailable) {
  const auto link = cluster::ShardLink::Connect({.address = "127.0.0.1:1"}, Soon());
  EXPECT_EQ(link.status().code(), absl::StatusCode::kUnavailable) << link.status();
}

TEST(ShardLinkTest, AListenerThatSaysNothingCostsTheDeadlineOnce) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
  socklen_t length = sizeof(address);
  ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&address), length), 0);
  ASSERT_EQ(listen(listener, 1), 0);
  ASSERT_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length), 0);
  const auto link =
      cluster::ShardLink::Connect({.address = absl::StrCat("127.0.0.1:", ntohs(address.sin_port))},
                                  absl::Now() + absl::Milliseconds(200));
  EXPECT_EQ(link.status().code(), absl::StatusCode::kDeadlineExceeded) << link.status();
  close(listener);
}

TEST(ShardServerTest, PlaintextIsForLoopbackUnlessAskedFor) {
  EXPECT_TRUE(wire::CheckListenAddress("127.0.0.1:0", false, nullptr).ok());
  EXPECT_TRUE(wire::CheckListenAddress("localhost:7001", false, nullptr).ok());
  EXPECT_TRUE(wire::CheckListenAddress("[::1]:7001", false, nullptr).ok());
  EXPECT_TRUE(wire::CheckListenAddress("0.0.0.0:7001", true, nullptr).ok());
  EXPECT_EQ(RefusalReason(wire::CheckListenAddress("0.0.0.0:7001", false, nullptr)),
            "LISTEN_NOT_LOOPBACK");
  EXPECT_EQ(RefusalReason(wire::CheckListenAddress("10.0.0.7:7001", false, nullptr)),
            "LISTEN_NOT_LOOPBACK");
  for (const char* bad : {"", "7001", ":7001", "host:", "host:x", "host:70000", "host:-1"}) {
    EXPECT_EQ(RefusalReason(wire::CheckListenAddress(bad, true, nullptr)), "LISTEN_ADDRESS") << bad;
  }
}

}  // namespace
}  // namespace reprise::testing
