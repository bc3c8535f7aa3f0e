// Shards and clients that die or stop at the worst moment: whole blocks or none, right bytes or a
// miss, and every call returns.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "proto/wire/channel.h"
#include "reprise/v1/shard.grpc.pb.h"
#include "tests/support/process.h"
#include "tests/support/stored_chain.h"

namespace reprise::testing {
namespace {

constexpr uint64_t kBlockBytes = 256 << 10;
constexpr uint32_t kBlocks = 24;

class ShardProcess {
 public:
  ShardProcess()
      : process_({BinFolder() + "/reprise-shard", "--id", "shard-f", "--listen", "127.0.0.1:0",
                  "--dram", "64MiB", "-o", "json", "--grace", "5"}) {
    const std::optional<std::string> line = process_.ReadLine(absl::Seconds(60));
    REPRISE_CHECK(line.has_value());
    address_ = nlohmann::json::parse(*line).at("address");
  }
  Process& process() { return process_; }
  const std::string& address() const { return address_; }

  std::unique_ptr<cluster::ShardLink> Connect(std::vector<LaneKind> lanes = {LaneKind::kStream}) {
    auto link = cluster::ShardLink::Connect(
        {.address = address_, .client_name = "fault", .lanes = std::move(lanes)}, Soon());
    REPRISE_CHECK(link.ok());
    return *std::move(link);
  }
  v1::ShardServiceDescribeResponse Describe() {
    v1::ShardServiceDescribeResponse response;
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    const grpc::Status status =
        v1::ShardService::NewStub(wire::MakeChannel(address_))->Describe(&context, {}, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }

 private:
  Process process_;
  std::string address_;
};

std::vector<uint32_t> Iota(uint32_t count) {
  std::vector<uint32_t> numbers(count);
  for (uint32_t i = 0; i < count; ++i) numbers[i] = i;
  return numbers;
}

class ShardFaultTest : public ::testing::TestWithParam<LaneKind> {
 protected:
  std::unique_ptr<cluster::ShardLink> Connect(ShardProcess& shard) {
    return shard.Connect({GetParam(), LaneKind::kStream});
  }
  const CacheSpec spec_ = SpecOf(kBlockBytes);
  const uint64_t block_bytes_ = LayoutOf(spec_).block_bytes;
  const std::vector<BlockKey> keys_ = ChainNamed("fault", kBlocks);
};

TEST_P(ShardFaultTest, AShardKilledDuringAReadGivesRightBlocksAndThenAMiss) {
  const uint32_t seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 4; ++round) {
    ShardProcess shard;
    const auto link = Connect(shard);
    ASSERT_EQ(*StoreChain(*link, spec_, keys_), kBlocks);
    const cluster::OpenedSpec opened = *link->OpenSpec(spec_, Soon());
    const cluster::AcquiredRun run = *link->Acquire(opened.handle, keys_, 0, Soon());
    const uint32_t fatal = random() % kBlocks;
    ContentSink sink(keys_, block_bytes_, [&](uint32_t i) {
      if (i == fatal) shard.process().Kill();
    });
    const absl::Status read =
        link->lane().Read({run.lease, 0, kBlocks, block_bytes_}, sink, Soon());
    EXPECT_EQ(sink.wrong, 0u);
    EXPECT_GT(sink.completed, fatal);
    // One that dies after its last block may not have said that it was the last.
    if (read.ok()) EXPECT_EQ(sink.completed, kBlocks);
    EXPECT_NE(read.code(), absl::StatusCode::kDeadlineExceeded) << read;
    while (link->alive()) std::this_thread::yield();
    EXPECT_EQ(link->Lookup(opened.handle, keys_, Soon()).status().code(),
              absl::StatusCode::kUnavailable);
  }
}

TEST_P(ShardFaultTest, AShardKilledDuringAWriteHasNoneOfItAndStartsAnew) {
  const uint32_t seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 4; ++round) {
    ShardProcess shard;
    const auto link = Connect(shard);
    const cluster::OpenedSpec opened = *link->OpenSpec(spec_, Soon());
    const cluster::ReservedRun reserved =
        *link->Reserve({.spec = opened.handle, .keys = keys_}, Soon());
    const uint32_t fatal = random() % kBlocks;
    ContentSource source(keys_, block_bytes_, [&](uint32_t i) {
      if (i == fatal) shard.process().Kill();
    });
    const absl::Status written =
        link->lane().Write({reserved.reservation, Iota(kBlocks), block_bytes_}, source, Soon());
    EXPECT_FALSE(written.ok());
    EXPECT_NE(written.code(), absl::StatusCode::kDeadlineExceeded) << written;
    EXPECT_FALSE(
        link->Commit(reserved.reservation, Iota(kBlocks), ChecksumsOf(keys_, spec_), Soon()).ok());

    ShardProcess next;
    const auto again = Connect(next);
    EXPECT_EQ(*FetchChain(*again, spec_, keys_), 0u);
    EXPECT_EQ(*StoreChain(*again, spec_, keys_), kBlocks);
    EXPECT_EQ(*FetchChain(*again, spec_, keys_), kBlocks);
  }
}

TEST_P(ShardFaultTest, EveryCallToAStoppedShardReturnsByItsDeadline) {
  ShardProcess shard;
  const auto link = Connect(shard);
  ASSERT_EQ(*StoreChain(*link, spec_, keys_), kBlocks);
  const cluster::OpenedSpec opened = *link->OpenSpec(spec_, Soon());
  const cluster::AcquiredRun run = *link->Acquire(opened.handle, keys_, 0, Soon());
  const std::vector<BlockKey> fresh = ChainNamed("stopped", 4);
  const cluster::ReservedRun reserved =
      *link->Reserve({.spec = opened.handle, .keys = fresh}, Soon());

  shard.process().Stop();
  const auto soon = [] { return absl::Now() + absl::Milliseconds(100); };
  const absl::StatusCode late = absl::StatusCode::kDeadlineExceeded;
  ContentSink sink(keys_, block_bytes_);
  ContentSource source(fresh, block_bytes_);
  EXPECT_EQ(link->Lookup(opened.handle, keys_, soon()).status().code(), late);
  EXPECT_EQ(link->Acquire(opened.handle, keys_, 0, soon()).status().code(), late);
  EXPECT_EQ(link->OpenSpec(SpecOf(4096, "other"), soon()).status().code(), late);
  EXPECT_EQ(link->lane().Read({run.lease, 0, kBlocks, block_bytes_}, sink, soon()).code(), late);
  EXPECT_EQ(
      link->lane().Write({reserved.reservation, Iota(4), block_bytes_}, source, soon()).code(),
      late);
  EXPECT_EQ(link->Release(run.lease, soon()).code(), late);
  EXPECT_FALSE(cluster::ShardLink::Connect({.address = shard.address()}, soon()).ok());
  EXPECT_EQ(sink.wrong, 0u);

  shard.process().Continue();
  const auto after = Connect(shard);
  EXPECT_EQ(*FetchChain(*after, spec_, keys_), kBlocks);
}

TEST_P(ShardFaultTest, AShardThatStaysStoppedLosesItsClientsAndTheirLeases) {
  ShardProcess shard;
  const auto link = Connect(shard);
  ASSERT_EQ(*StoreChain(*link, spec_, keys_), kBlocks);
  const cluster::OpenedSpec opened = *link->OpenSpec(spec_, Soon());
  ASSERT_TRUE(link->Acquire(opened.handle, keys_, 0, Soon())->lease);
  shard.process().Stop();
  while (link->alive()) std::this_thread::yield();
  shard.process().Continue();
  v1::ShardServiceDescribeResponse now = shard.Describe();
  while (now.attachments() + now.leases() > 0) now = shard.Describe();
  EXPECT_EQ(now.blocks(), kBlocks);
  const auto again = Connect(shard);
  EXPECT_EQ(*FetchChain(*again, spec_, keys_), kBlocks);
}

INSTANTIATE_TEST_SUITE_P(Lanes, ShardFaultTest,
                         ::testing::Values(LaneKind::kStream, LaneKind::kView),
                         [](const ::testing::TestParamInfo<LaneKind>& info) {
                           return std::string(LaneKindName(info.param));
                         });

TEST(ClientFaultTest, AClientThatIsKilledLeavesNeitherLeaseNorReservationNorHalfBlocks) {
  ShardProcess shard;
  const auto link = shard.Connect();
  const CacheSpec spec = SpecOf(64 << 10);
  const std::vector<BlockKey> stored = ChainNamed("stored", 8);
  const std::vector<BlockKey> half = ChainNamed("half", 8);
  ASSERT_EQ(*StoreChain(*link, spec, stored), 8u);
  Process client({BinFolder() + "/shard_fault_client", shard.address(), "stored", "half"});
  ASSERT_EQ(client.ReadLine(absl::Seconds(60)), "ready");
  EXPECT_EQ(shard.Describe().leases(), 1u);
  EXPECT_EQ(shard.Describe().reservations(), 1u);
  EXPECT_EQ(shard.Describe().attachments(), 2u);
  client.Kill();
  v1::ShardServiceDescribeResponse now = shard.Describe();
  while (now.leases() + now.reservations() > 0) now = shard.Describe();
  EXPECT_EQ(now.blocks(), 8u);
  EXPECT_EQ(*FetchChain(*link, spec, half), 0u);
  EXPECT_EQ(*StoreChain(*link, spec, half), 8u);
  EXPECT_EQ(*FetchChain(*link, spec, half), 8u);
}

TEST(ShardProcessTest, SigtermIsAnOrderlyStop) {
  ShardProcess shard;
  const auto link = shard.Connect();
  shard.process().Signal(SIGTERM);
  const std::optional<int> status = shard.process().Wait(absl::Seconds(60));
  ASSERT_TRUE(status.has_value());
  EXPECT_TRUE(WIFEXITED(*status) && WEXITSTATUS(*status) == 0) << *status;
  while (link->alive()) std::this_thread::yield();
  EXPECT_TRUE(link->draining());
}

TEST(ShardProcessTest, ABadFlagIsRefusedByNameAndNothingIsServed) {
  for (const char* flag :
       {"--dram=lots", "--listen=0.0.0.0:0", "--listen=nowhere", "--replication=0"}) {
    Process shard({BinFolder() + "/reprise-shard", flag});
    const std::optional<int> status = shard.Wait(absl::Seconds(60));
    ASSERT_TRUE(status.has_value()) << flag;
    EXPECT_TRUE(WIFEXITED(*status) && WEXITSTATUS(*status) != 0) << flag;
    EXPECT_EQ(shard.ReadLine(absl::Seconds(1)), std::nullopt) << flag;
  }
}

}  // namespace
}  // namespace reprise::testing
