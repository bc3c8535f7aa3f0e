// The NCCL lane of real servers and links, over the fake libnccl: host memory passes for a GPU's.
// What the lane does when something fails is tests/fault/nccl's.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <thread>

#include "cluster/peer/copy_chain.h"
#include "cluster/peer/pull_chain.h"
#include "proto/types/refusal.h"
#include "reprise/v1/peer.grpc.pb.h"
#include "service/shard/engine_source.h"
#include "service/shard/engine_target.h"
#include "tests/cluster/nccl_shard.h"

namespace reprise::testing {
namespace {

// Less than tells a rate in all, so that lanes are chosen by what they are here.
const CacheSpec kSpec = SpecOf(16 << 10);
constexpr uint32_t kBlocks = 40;

// A worker's memory on its GPU: compares what comes and notes by which lane it came.
class DeviceSink final : public lanes::BlockSink {
 public:
  DeviceSink(std::vector<BlockKey> keys, uint64_t block_bytes, int gpu)
      : keys_(std::move(keys)), block_(block_bytes), gpu_(gpu) {}
  lanes::MemoryKind memory() const override { return lanes::MemoryKind::kDevice; }
  int device() const override { return gpu_; }
  std::span<uint8_t> Buffer(uint32_t) override { return block_; }
  absl::Status Complete(uint32_t i) override { return Deliver(i, block_); }
  absl::Status Deliver(uint32_t i, std::span<const uint8_t> bytes) override {
    ++by_lane[*carried_by()];
    return i == completed++ && HasContent(keys_.at(i), 0, bytes) ? absl::OkStatus()
                                                                 : absl::DataLossError("wrong");
  }
  absl::Status DeliverDevice(uint32_t first,
                             std::span<const std::span<const uint8_t>> blocks) override {
    for (const auto& block : blocks) REPRISE_RETURN_IF_ERROR(Deliver(first++, block));
    return absl::OkStatus();
  }
  std::map<LaneKind, uint32_t> by_lane;
  uint32_t completed = 0;

 private:
  const std::vector<BlockKey> keys_;
  std::vector<uint8_t> block_;
  const int gpu_;
};

// The same the other way round; counts the blocks that it put into device memory itself.
class DeviceSource final : public lanes::BlockSource {
 public:
  DeviceSource(std::vector<BlockKey> keys, uint64_t block_bytes, int gpu)
      : keys_(std::move(keys)), block_(block_bytes), gpu_(gpu) {}
  lanes::MemoryKind memory() const override { return lanes::MemoryKind::kDevice; }
  int device() const override { return gpu_; }
  absl::StatusOr<std::span<const uint8_t>> Bytes(uint32_t i) override {
    FillContent(keys_.at(i), 0, block_);
    return std::span<const uint8_t>(block_);
  }
  absl::Status Fill(uint32_t i, std::span<uint8_t> slot) override {
    FillContent(keys_.at(i), 0, slot);
    return absl::OkStatus();
  }
  absl::Status FillDevice(uint32_t first, std::span<const std::span<uint8_t>> slots) override {
    for (const std::span<uint8_t>& slot : slots) {
      ++filled;
      REPRISE_RETURN_IF_ERROR(Fill(first++, slot));
    }
    return absl::OkStatus();
  }
  uint32_t filled = 0;

 private:
  const std::vector<BlockKey> keys_;
  std::vector<uint8_t> block_;
  const int gpu_;
};

using ByLane = std::map<LaneKind, uint32_t>;

// Reads the whole chain into device memory; which lanes brought it.
ByLane ReadToDevice(cluster::ShardLink& link, const std::vector<BlockKey>& keys, int gpu = 0,
                    absl::Duration budget = absl::Seconds(30)) {
  const auto opened = link.OpenSpec(kSpec, Soon());
  const auto run = link.Acquire(opened->handle, keys, 0, Soon());
  EXPECT_TRUE(run.ok()) << run.status();
  DeviceSink sink(keys, opened->block_bytes, gpu);
  const absl::Status read = link.lane().Read({run->lease, 0, run->run_blocks, opened->block_bytes},
                                             sink, absl::Now() + budget);
  EXPECT_TRUE(read.ok()) << read;
  EXPECT_EQ(sink.completed, keys.size());
  EXPECT_TRUE(link.Release(run->lease, Soon()).ok());
  return sink.by_lane;
}

// Writes a new chain from device memory; how many blocks the source put there itself.
uint32_t WriteFromDevice(cluster::ShardLink& link, const std::string& name, int gpu = 0,
                         absl::Duration budget = absl::Seconds(30)) {
  const auto keys = ChainNamed(name, kBlocks);
  const auto opened = link.OpenSpec(kSpec, Soon());
  const auto reserved = link.Reserve({.spec = opened->handle, .keys = keys}, Soon());
  EXPECT_TRUE(reserved.ok()) << reserved.status();
  std::vector<uint32_t> blocks(kBlocks);
  std::iota(blocks.begin(), blocks.end(), 0);
  DeviceSource source(keys, opened->block_bytes, gpu);
  const absl::Status written = link.lane().Write(
      {.reservation = reserved->reservation, .blocks = blocks, .block_bytes = opened->block_bytes},
      source, absl::Now() + budget);
  EXPECT_TRUE(written.ok()) << written;
  EXPECT_TRUE(link.Commit(reserved->reservation, blocks, ChecksumsOf(keys, kSpec), Soon()).ok());
  return source.filled;
}

// Until one read came by NCCL as a whole; false when none did.
bool AwaitNccl(cluster::ShardLink& link, const std::vector<BlockKey>& keys, int gpu = 0) {
  const absl::Time deadline = Soon();
  while (absl::Now() < deadline) {
    const ByLane by_lane = ReadToDevice(link, keys, gpu);
    if (by_lane == ByLane{{LaneKind::kNccl, kBlocks}}) return true;
    EXPECT_EQ(by_lane, (ByLane{{LaneKind::kStream, kBlocks}}));
  }
  return false;
}

// The shard counts what it sent when NCCL is done at its end, which is a moment later than here.
uint64_t AwaitBlocksRead(NcclShard& shard, uint64_t blocks) {
  const absl::Time deadline = Soon();
  while (shard.end().use().blocks_read < blocks && absl::Now() < deadline) {
    std::this_thread::yield();
  }
  return shard.end().use().blocks_read;
}

class NcclLinkTest : public ::testing::Test {
 protected:
  void SetUp() override { SetNcclFaults(""); }
  // Aborts run in the background.
  void TearDown() override {
    const absl::Time deadline = Soon();
    while (LiveCommunicators() > 0 && absl::Now() < deadline) std::this_thread::yield();
    EXPECT_EQ(LiveCommunicators(), 0);
  }
};

TEST_F(NcclLinkTest, AWorkersBlocksComeByStreamUntilTheLinkIsUpAndThenByNccl) {
  NcclShard shard;
  const auto nccl = FakeNcclContext();
  const auto link = shard.Connect(nccl);
  const auto keys = ChainNamed("chat", kBlocks);
  ASSERT_EQ(StoreChain(*link, kSpec, keys).value_or(0), kBlocks);
  EXPECT_EQ(nccl->links(), 0u);
  EXPECT_EQ(ReadToDevice(*link, keys), (ByLane{{LaneKind::kStream, kBlocks}}));
  ASSERT_TRUE(AwaitNccl(*link, keys));
  EXPECT_EQ(nccl->links(), 1u);
  EXPECT_EQ(AwaitBlocksRead(shard, kBlocks), kBlocks);
  EXPECT_EQ(shard.end().use().bytes_read, kBlocks * LayoutOf(kSpec).block_bytes);
}

TEST_F(NcclLinkTest, HostMemoryGoesByStreamAndMakesNoLink) {
  NcclShard shard;
  const auto nccl = FakeNcclContext();
  const auto link = shard.Connect(nccl);
  const auto keys = ChainNamed("chat", kBlocks);
  ASSERT_EQ(StoreChain(*link, kSpec, keys).value_or(0), kBlocks);
  EXPECT_EQ(FetchChain(*link, kSpec, keys).value_or(0), kBlocks);
  EXPECT_EQ(nccl->links(), 0u);
  EXPECT_EQ(shard.end().use().links, 0u);
}

TEST_F(NcclLinkTest, ARunThatLiesPartlyInHostMemoryComesByStreamAndTheLinkStays) {
  NcclShard shard;
  const auto link = shard.Connect(FakeNcclContext());
  const auto keys = ChainNamed("chat", kBlocks);
  ASSERT_EQ(StoreChain(*link, kSpec, keys).value_or(0), kBlocks);
  ASSERT_TRUE(AwaitNccl(*link, keys));
  shard.slots().one_elsewhere = true;
  EXPECT_EQ(ReadToDevice(*link, keys), (ByLane{{LaneKind::kStream, kBlocks}}));
  shard.slots().one_elsewhere = false;
  EXPECT_EQ(ReadToDevice(*link, keys), (ByLane{{LaneKind::kNccl, kBlocks}}));
}

TEST_F(NcclLinkTest, MemoryOnAnotherGpuThanNcclsGoesByStreamAndTheLinkStays) {
  NcclShard shard;
  const auto keys = ChainNamed("chat", kBlocks);
  for (const int gpu : {0, 1}) {
    const auto link = shard.Connect(FakeNcclContext(/*links_max=*/8, gpu));
    ASSERT_TRUE(StoreChain(*link, kSpec, keys).ok());
    ASSERT_TRUE(AwaitNccl(*link, keys, gpu));
    const std::string name = "written " + std::to_string(gpu);
    EXPECT_EQ(ReadToDevice(*link, keys, 1 - gpu), (ByLane{{LaneKind::kStream, kBlocks}}));
    EXPECT_EQ(WriteFromDevice(*link, name + " from elsewhere", 1 - gpu), 0u);
    EXPECT_EQ(ReadToDevice(*link, keys, gpu), (ByLane{{LaneKind::kNccl, kBlocks}}));
    EXPECT_EQ(WriteFromDevice(*link, name, gpu), kBlocks);
  }
}

TEST_F(NcclLinkTest, TheEndOfAnAttachmentIsTheEndOfItsLinks) {
  NcclShard shard;
  const auto nccl = FakeNcclContext();
  auto link = shard.Connect(nccl);
  const auto other = shard.Connect(nccl);
  const auto keys = ChainNamed("chat", kBlocks);
  ASSERT_EQ(StoreChain(*link, kSpec, keys).value_or(0), kBlocks);
  ASSERT_TRUE(AwaitNccl(*link, keys));
  ASSERT_TRUE(AwaitNccl(*other, keys));
  EXPECT_EQ(shard.end().use().links, 2u);
  link.reset();
  const absl::Time deadline = Soon();
  while (shard.end().use().links > 1 && absl::Now() < deadline) std::this_thread::yield();
  EXPECT_EQ(shard.end().use().links, 1u);
  EXPECT_EQ(nccl->links(), 1u);
  EXPECT_EQ(ReadToDevice(*other, keys), (ByLane{{LaneKind::kNccl, kBlocks}}));
}

TEST_F(NcclLinkTest, TheEndOfTheAttachStreamIsTheEndOfTheCallersLink) {
  // NCCL itself says nothing of a peer that is gone.
  SetNcclFaults("silent=1");
  auto shard = std::make_unique<NcclShard>();
  const auto nccl = FakeNcclContext();
  const auto link = shard->Connect(nccl);
  const auto keys = ChainNamed("chat", kBlocks);
  ASSERT_EQ(StoreChain(*link, kSpec, keys).value_or(0), kBlocks);
  ASSERT_TRUE(AwaitNccl(*link, keys));
  EXPECT_EQ(nccl->links(), 1u);
  shard.reset();
  const absl::Time deadline = Soon();
  while (nccl->links() > 0 && absl::Now() < deadline) std::this_thread::yield();
  EXPECT_EQ(nccl->links(), 0u);
  EXPECT_FALSE(link->alive());
}

TEST_F(NcclLinkTest, AProcessWithAllItsLinksUsesTheStream) {
  NcclShard shard;
  const auto nccl = FakeNcclContext(/*links_max=*/1);
  const auto link = shard.Connect(nccl);
  const auto other = shard.Connect(nccl);
  const auto keys = ChainNamed("chat", kBlocks);
  ASSERT_EQ(StoreChain(*link, kSpec, keys).value_or(0), kBlocks);
  ASSERT_TRUE(AwaitNccl(*link, keys));
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(ReadToDevice(*other, keys), (ByLane{{LaneKind::kStream, kBlocks}}));
  }
  EXPECT_EQ(nccl->links(), 1u);
}

// What becomes of a transfer, for each way in which NCCL fails: tests/fault/nccl has them all, with
// another lane behind NCCL's.
TEST_F(NcclLinkTest, ATransferWhoseLinkFailsGoesOnByStreamWithinItsDeadline) {
  constexpr absl::Duration kBudget = absl::Seconds(1);
  constexpr absl::Duration kMargin = absl::Seconds(4);  // against hanging, no claim of speed
  const auto keys = ChainNamed("chat", kBlocks);
  for (const char* group : {"hang", "enqueue", "error", "vanish"}) {
    for (const bool writes : {false, true}) {
      SCOPED_TRACE(absl::StrCat(group, writes ? ", writes" : ", reads"));
      // The warming and one read go well.
      SetNcclFaults(absl::StrCat("rank=1,after=2,group=", group));
      NcclShard shard;
      const auto link = shard.Connect(FakeNcclContext());
      ASSERT_EQ(StoreChain(*link, kSpec, keys).value_or(0), kBlocks);
      ASSERT_TRUE(AwaitNccl(*link, keys));
      const absl::Time started = MonotonicClock().Now();
      if (writes) {
        WriteFromDevice(*link, "written", /*gpu=*/0, kBudget);
      } else {
        EXPECT_EQ(ReadToDevice(*link, keys, /*gpu=*/0, kBudget),
                  (ByLane{{LaneKind::kStream, kBlocks}}));
      }
      EXPECT_LT(MonotonicClock().Now() - started, kBudget + kMargin);
      EXPECT_EQ(shard.end().use().blocks_written, 0u);
      EXPECT_EQ(AwaitBlocksRead(shard, kBlocks), kBlocks);
    }
  }
}

TEST_F(NcclLinkTest, OnlyTheOwnAttachmentsLinksAreServed) {
  NcclShard shard;
  const auto stub = v1::PeerService::NewStub(wire::MakeChannel(shard.shard().address()));
  v1::NcclConnectRequest request;
  request.set_attachment_id(12345);
  request.set_link_id(1);
  request.set_unique_id(std::string(128, 'x'));
  grpc::ClientContext context;
  v1::NcclConnectResponse response;
  const absl::Status refused =
      wire::FromGrpcStatus(stub->NcclConnect(&context, request, &response));
  EXPECT_TRUE(absl::IsNotFound(refused)) << refused;
  EXPECT_EQ(RefusalReason(refused), "ATTACHMENT_UNKNOWN");
  EXPECT_EQ(shard.end().use().links, 0u);
}

TEST_F(NcclLinkTest, DescribeSaysWhichLanesThereAreAndWhyOthersAreNot) {
  NcclShard shard;
  grpc::ClientContext context;
  v1::ShardServiceDescribeResponse told;
  ASSERT_TRUE(shard.shard().Stub()->Describe(&context, {}, &told).ok());
  ASSERT_EQ(told.lanes_size(), 2);
  EXPECT_EQ(told.lanes(0), v1::LANE_KIND_NCCL);
  ASSERT_EQ(told.absent_lanes_size(), 1);
  EXPECT_EQ(told.absent_lanes(0).lane(), v1::LANE_KIND_VIEW);
  EXPECT_EQ(told.absent_lanes(0).why(), "not in this test");
}

// ---- Shard to shard

// Chains of an engine whose slots pass for device memory, or for host memory from block `host_from`
// on.
class DeviceChains final : public cluster::ReplicationSource {
 public:
  explicit DeviceChains(shard::ShardEngine& engine) : source_(engine) {}
  absl::StatusOr<std::unique_ptr<cluster::SourceChain>> Open(const cluster::ReplicationJob& job,
                                                             uint32_t first) override {
    REPRISE_ASSIGN_OR_RETURN(std::unique_ptr<cluster::SourceChain> chain, source_.Open(job, first));
    return std::make_unique<Chain>(std::move(chain), host_from);
  }
  std::unique_ptr<cluster::StoredChains> Chains() override { return source_.Chains(); }
  uint32_t host_from = ~uint32_t{0};

 private:
  class Chain final : public cluster::SourceChain {
   public:
    Chain(std::shared_ptr<cluster::SourceChain> chain, uint32_t host_from)
        : chain_(std::move(chain)), host_from_(host_from) {}
    uint32_t run_blocks() const override { return chain_->run_blocks(); }
    const Checksum128& checksum(uint32_t index) const override { return chain_->checksum(index); }
    absl::StatusOr<std::span<const uint8_t>> Bytes(uint32_t index) override {
      return chain_->Bytes(index);
    }
    std::optional<lanes::PinnedBytes> InDevice(uint32_t index) override {
      if (index >= host_from_) return std::nullopt;
      return lanes::PinnedBytes{
          .bytes = *chain_->Bytes(index), .pin = chain_, .memory = lanes::MemoryKind::kDevice};
    }

   private:
    const std::shared_ptr<cluster::SourceChain> chain_;
    const uint32_t host_from_;
  };

  shard::EngineSource source_;
};

class NcclCopyTest : public NcclLinkTest {
 protected:
  // Stores a new chain here and copies it; the blocks of it that came by NCCL.
  uint64_t Copy(DeviceChains& chains, cluster::ShardLink& to) {
    const auto keys = ChainNamed("chain-" + std::to_string(++chains_), kBlocks);
    EXPECT_EQ(StoreChain(*here_link_, kSpec, keys).value_or(0), kBlocks);
    const uint64_t before = there_.end().use().blocks_written;
    const auto [copied, status] =
        cluster::CopyChain(to, chains, {.tenant = Tenant{"default"}, .spec = kSpec, .keys = keys},
                           {.deadline = Soon()});
    EXPECT_EQ(status, absl::OkStatus());
    EXPECT_EQ(copied.blocks, kBlocks);
    EXPECT_EQ(FetchChain(*there_link_, kSpec, keys).value_or(0), kBlocks);
    return there_.end().use().blocks_written - before;
  }
  bool AwaitCopyByNccl(DeviceChains& chains, cluster::ShardLink& to) {
    const absl::Time deadline = Soon();
    while (absl::Now() < deadline) {
      if (Copy(chains, to) == kBlocks) return true;
    }
    return false;
  }

  LoopbackShard here_;
  NcclShard there_;
  const std::unique_ptr<cluster::ShardLink> here_link_ = here_.Connect();
  const std::unique_ptr<cluster::ShardLink> there_link_ = there_.shard().Connect();
  int chains_ = 0;
};

TEST_F(NcclCopyTest, AChainInDeviceMemoryIsCopiedByNcclOnceTheLinkIsUp) {
  DeviceChains chains(here_.engine());
  const auto nccl = FakeNcclContext();
  const auto to = there_.Connect(nccl);
  ASSERT_TRUE(AwaitCopyByNccl(chains, *to));
  EXPECT_EQ(nccl->links(), 1u);
}

TEST_F(NcclCopyTest, AChainThatLiesPartlyInHostMemoryIsCopiedByStream) {
  DeviceChains chains(here_.engine());
  const auto to = there_.Connect(FakeNcclContext());
  ASSERT_TRUE(AwaitCopyByNccl(chains, *to));
  chains.host_from = kBlocks - 1;
  EXPECT_EQ(Copy(chains, *to), 0u);
  chains.host_from = kBlocks;
  EXPECT_EQ(Copy(chains, *to), kBlocks);
}

class NcclPullTest : public NcclLinkTest {
 protected:
  // Pulls a new chain from there into device memory here; the blocks of it that came by NCCL.
  uint64_t Pull(cluster::ShardLink& from) {
    const auto keys = ChainNamed("pulled-" + std::to_string(++chains_), kBlocks);
    EXPECT_EQ(StoreChain(*there_link_, kSpec, keys).value_or(0), kBlocks);
    const uint64_t before = there_.end().use().blocks_read;
    const cluster::PullOutcome outcome = cluster::PullChain(
        from, target_, {.tenant = Tenant{"default"}, .spec = kSpec, .keys = keys}, Soon());
    EXPECT_EQ(outcome.status, absl::OkStatus());
    EXPECT_EQ(outcome.pulled.blocks, kBlocks);
    const auto run =
        here_link_->Acquire(here_link_->OpenSpec(kSpec, Soon())->handle, keys, 0, Soon());
    EXPECT_EQ(run->tiers, std::vector<TierRun>({{Tier::kHbm, kBlocks}}));
    EXPECT_EQ(FetchChain(*here_link_, kSpec, keys).value_or(0), kBlocks);
    return there_.end().use().blocks_read - before;
  }

  LoopbackShard here_{LoopbackShard::Options{.hbm_bytes = 64 << 20}};
  NcclShard there_;
  const std::unique_ptr<cluster::ShardLink> here_link_ = here_.Connect();
  const std::unique_ptr<cluster::ShardLink> there_link_ = there_.shard().Connect();
  shard::EngineTarget target_{here_.engine()};
  int chains_ = 0;
};

TEST_F(NcclPullTest, AChainIsPulledIntoDeviceMemoryByNcclOnceTheLinkIsUp) {
  const auto from = there_.Connect(FakeNcclContext());
  const absl::Time deadline = Soon();
  uint64_t by_nccl = 0;
  while (by_nccl < kBlocks && absl::Now() < deadline) by_nccl = Pull(*from);
  EXPECT_EQ(by_nccl, kBlocks);
}

}  // namespace
}  // namespace reprise::testing
