// The client's verbs between GPU memory and a real shard, by NCCL: a fake GPU at the client's end,
// the fake libnccl between, and host memory that passes for a GPU's at the shard's.
#include <gtest/gtest.h>

#include <thread>

#include "client/cpp/client.h"
#include "proto/types/refusal.h"
#include "tests/cluster/nccl_shard.h"
#include "tests/support/fake_gpu/fake_gpu.h"
#include "tests/unit/client/cpp/device_engine.h"

namespace reprise::testing {
namespace {

using client::Client;
using client::testing::DeviceEngine;
using client::testing::Must;

constexpr char kSession[] = "user-1";

const kernels::EngineShape& kShape = client::testing::kSmallEngine;
const uint32_t kBlocks = kShape.pages;

class NcclClientTest : public ::testing::Test {
 protected:
  // NCCL moves bytes between addresses of the GPU: its stand-in touches them with the CPU.
  NcclClientTest() { ConfigureFakeGpu({.deferred = true, .seed = 7, .touch_caught = false}); }
  ~NcclClientTest() override {
    client_.reset();
    shard_.reset();
    const absl::Time deadline = Soon();
    while (LiveCommunicators() > 0 && absl::Now() < deadline) std::this_thread::yield();
    EXPECT_EQ(LiveCommunicators(), 0);
    EXPECT_EQ(UseOfFakeGpu().alive(), 0u);
  }

  void Start(const std::string& faults = "") {
    SetNcclFaults(faults);
    shard_.emplace();
    client_ = Must(Client::Create({.shards = {shard_->shard().address()},
                                   .lanes = {LaneKind::kNccl, LaneKind::kStream},
                                   .gpu = 0,
                                   .nccl_library = REPRISE_FAKE_NCCL_LIBRARY}));
    spec_ = Must(client_->OpenSpec(client::testing::SmallEngineSpec()));
  }
  std::vector<BlockKey> NewChain() {
    return ChainNamed("chain " + std::to_string(++chains_), kBlocks);
  }
  client::StoreResult Store(const DeviceEngine& from, const std::vector<BlockKey>& keys) {
    return Must(client_->Store(
        {.spec = spec_, .keys = keys, .session = kSession, .memory = from.Memory()}));
  }
  uint32_t Stored(const std::vector<BlockKey>& keys) {
    return Must(client_->Acquire({.spec = spec_, .keys = keys, .session = kSession})).run->blocks();
  }
  client::FetchResult Fetch(const DeviceEngine& to, const std::vector<BlockKey>& keys) {
    const auto found = Must(client_->Acquire({.spec = spec_, .keys = keys, .session = kSession}));
    EXPECT_EQ(found.run->blocks(), kBlocks) << found.status;
    return Must(client_->Fetch(found.run, {.first = 0, .count = kBlocks, .memory = to.Memory()}));
  }
  // Stores new chains until the link is up and one of them went by it, or failed on it: its result.
  client::StoreResult StoreByNccl(const DeviceEngine& from, std::vector<BlockKey>& keys) {
    const absl::Time deadline = Soon();
    while (true) {
      keys = NewChain();
      const client::StoreResult stored = Store(from, keys);
      if (shard_->end().use().blocks_written > 0 || absl::Now() > deadline) return stored;
      EXPECT_TRUE(stored.status.ok()) << stored.status;
    }
  }

  std::optional<NcclShard> shard_;
  std::unique_ptr<Client> client_;
  std::shared_ptr<const client::ClientSpec> spec_;
  int chains_ = 0;
};

constexpr auto kNcclLane = static_cast<size_t>(LaneKind::kNccl);

TEST_F(NcclClientTest, PagesOnAGpuAreStoredAndRestoredBitForBit) {
  Start();
  DeviceEngine from(kShape, 1), to(kShape, 2);
  std::vector<BlockKey> keys;
  const client::StoreResult stored = StoreByNccl(from, keys);
  EXPECT_TRUE(stored.status.ok()) << stored.status;
  EXPECT_EQ(stored.stored, kBlocks);
  EXPECT_EQ(shard_->end().use().blocks_written, kBlocks);
  const client::FetchResult fetched = Fetch(to, keys);
  EXPECT_TRUE(fetched.status.ok()) << fetched.status;
  EXPECT_EQ(fetched.blocks, kBlocks);
  EXPECT_EQ(fetched.by_lane[kNcclLane], kBlocks);
  for (uint32_t i = 0; i < to.blocks(); ++i) {
    to.host().NaiveScatter({}, to.PagesOf(i), from.Block(i));
  }
  EXPECT_TRUE(to.Same());
}

TEST_F(NcclClientTest, AByteFlippedOnTheWayToTheGpuIsAMissAndIsNotPlaced) {
  // The first block of each group that the client receives.
  Start("rank=0,flip=1,after=1");
  DeviceEngine from(kShape, 1), to(kShape, 2);
  std::vector<BlockKey> keys;
  ASSERT_EQ(StoreByNccl(from, keys).stored, kBlocks);
  const client::FetchResult fetched = Fetch(to, keys);
  EXPECT_EQ(fetched.blocks, 0u);
  EXPECT_EQ(fetched.corrupt, 1u);
  EXPECT_TRUE(absl::IsDataLoss(fetched.status)) << fetched.status;
  EXPECT_TRUE(to.Same()) << "a block that is not counted was written";
}

TEST_F(NcclClientTest, AByteFlippedOnTheWayToTheShardIsRefusedAndNothingOfTheChainIsVisible) {
  Start("rank=1,flip=1,after=1");
  DeviceEngine from(kShape, 1);
  std::vector<BlockKey> keys;
  const client::StoreResult stored = StoreByNccl(from, keys);
  EXPECT_EQ(shard_->end().use().blocks_written, kBlocks);
  EXPECT_EQ(stored.stored, 0u);
  EXPECT_EQ(RefusalReason(stored.status), "CHECKSUM_MISMATCH") << stored.status;
  EXPECT_EQ(Stored(keys), 0u);
  EXPECT_EQ(shard_->shard().engine().CheckInvariants(), absl::OkStatus());
}

}  // namespace
}  // namespace reprise::testing
