// The client's verbs between GPU memory and shards: a fake GPU, and a cluster in this process.
#include "gtest/gtest.h"
#include "proto/types/refusal.h"
#include "tests/support/fake_gpu/fake_gpu.h"
#include "tests/unit/client/cpp/device_engine.h"
#include "tests/unit/client/cpp/fake_cluster.h"

namespace reprise::client {
namespace {

using reprise::testing::ChainNamed;
using reprise::testing::ConfigureFakeGpu;
using testing::DeviceEngine;
using testing::DeviceSlots;
using testing::FakeCluster;
using testing::Must;

constexpr char kSession[] = "user-1";

const kernels::EngineShape& kShape = testing::kSmallEngine;

class DeviceClientTest : public ::testing::Test {
 protected:
  DeviceClientTest() {
    ConfigureFakeGpu({.deferred = true, .seed = 5});
    cluster_.emplace(2);
    client_ = cluster_->MakeClient();
    spec_ = Must(client_->OpenSpec(testing::SmallEngineSpec()));
    keys_ = ChainNamed("device", kShape.pages);
  }
  StoreResult Store(const DeviceEngine& from) {
    return Must(client_->Store(
        {.spec = spec_, .keys = keys_, .session = kSession, .memory = from.Memory()}));
  }
  FetchResult Fetch(const CallerMemory& memory, uint32_t count) {
    const AcquireResult found =
        Must(client_->Acquire({.spec = spec_, .keys = keys_, .session = kSession}));
    EXPECT_EQ(found.run->blocks(), keys_.size()) << found.status;
    return Must(client_->Fetch(found.run, {.first = 0, .count = count, .memory = memory}));
  }

  std::optional<FakeCluster> cluster_;
  std::unique_ptr<Client> client_;
  std::shared_ptr<const ClientSpec> spec_;
  std::vector<BlockKey> keys_;
};

TEST_F(DeviceClientTest, PagesOnAGpuAreStoredAndRestoredBitForBit) {
  DeviceEngine from(kShape, 1), to(kShape, 2);
  ASSERT_EQ(spec_->layout.block_bytes, from.layout().block_bytes);
  const StoreResult stored = Store(from);
  EXPECT_TRUE(stored.status.ok()) << stored.status;
  EXPECT_EQ(stored.stored, keys_.size());
  const FetchResult fetched = Fetch(to.Memory(), static_cast<uint32_t>(keys_.size()));
  EXPECT_TRUE(fetched.status.ok()) << fetched.status;
  EXPECT_EQ(fetched.blocks, keys_.size());
  EXPECT_EQ(fetched.by_tier[static_cast<size_t>(Tier::kDram)], keys_.size());
  for (uint32_t i = 0; i < to.blocks(); ++i) {
    to.host().NaiveScatter({}, to.PagesOf(i), from.Block(i));
  }
  EXPECT_TRUE(to.Same());
}

TEST_F(DeviceClientTest, WhatAGpuStoredHostMemoryReads) {
  DeviceEngine from(kShape, 1);
  ASSERT_EQ(Store(from).stored, keys_.size());
  std::vector<std::vector<uint8_t>> blocks(keys_.size());
  CallerMemory memory;
  for (auto& block : blocks) {
    block.resize(spec_->layout.block_bytes);
    memory.buffers.push_back(block.data());
  }
  EXPECT_EQ(Fetch(memory, static_cast<uint32_t>(keys_.size())).blocks, keys_.size());
  for (uint32_t i = 0; i < keys_.size(); ++i) EXPECT_EQ(blocks[i], from.Block(i)) << i;
}

TEST_F(DeviceClientTest, AFlippedByteIsAShorterRunAndIsCounted) {
  DeviceEngine from(kShape, 1), to(kShape, 2);
  ASSERT_EQ(Store(from).stored, keys_.size());
  for (auto& shard : cluster_->shards()) shard->trouble.corrupt_block = 6;
  const FetchResult fetched = Fetch(to.Memory(), static_cast<uint32_t>(keys_.size()));
  EXPECT_EQ(fetched.blocks, 6u);
  EXPECT_EQ(fetched.corrupt, 1u);
  for (uint32_t i = 0; i < 6; ++i) to.host().NaiveScatter({}, to.PagesOf(i), from.Block(i));
  EXPECT_TRUE(to.Same()) << "a block that is not counted was written";
}

TEST_F(DeviceClientTest, AShardThatDiesLeavesWhatCameInPlace) {
  DeviceEngine from(kShape, 1), to(kShape, 2);
  ASSERT_EQ(Store(from).stored, keys_.size());
  cluster_->Home(kSession).trouble.die_at_block = 4;
  const FetchResult fetched = Fetch(to.Memory(), static_cast<uint32_t>(keys_.size()));
  EXPECT_EQ(fetched.blocks, 4u);
  EXPECT_FALSE(fetched.status.ok());
  for (uint32_t i = 0; i < 4; ++i) to.host().NaiveScatter({}, to.PagesOf(i), from.Block(i));
  EXPECT_TRUE(to.Same());
}

TEST_F(DeviceClientTest, ALostGpuEndsTheCallAndBlamesNoShard) {
  std::vector<uint8_t> host(spec_->layout.block_bytes, 7);
  CallerMemory on_host;
  for (size_t i = 0; i < keys_.size(); ++i) on_host.buffers.push_back(host.data());
  ASSERT_EQ(
      Must(client_->Store({.spec = spec_, .keys = keys_, .session = kSession, .memory = on_host}))
          .stored,
      keys_.size());
  uint64_t setup = 0;
  {
    ConfigureFakeGpu({});
    DeviceEngine to(kShape, 2);
    setup = reprise::testing::UseOfFakeGpu().copies;
  }
  ConfigureFakeGpu({.lost_after = setup + 2});
  {
    DeviceEngine to(kShape, 2);
    const FetchResult fetched = Fetch(to.Memory(), static_cast<uint32_t>(keys_.size()));
    EXPECT_EQ(fetched.blocks, 0u);
    EXPECT_EQ(RefusalReason(fetched.status), "GPU_LOST") << fetched.status;
  }
  for (const ShardView& shard : client_->Shards()) EXPECT_EQ(shard.breaker_opened, 0u);
  EXPECT_EQ(Fetch(on_host, static_cast<uint32_t>(keys_.size())).blocks, keys_.size());
}

TEST_F(DeviceClientTest, AGpuThatIsNotThereIsRefused) {
  DeviceEngine to(kShape, 2);
  CallerMemory gone = to.Memory();
  gone.device = 1;
  EXPECT_EQ(client_->Store({.spec = spec_, .keys = keys_, .memory = gone}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(to.Same());
}

}  // namespace
}  // namespace reprise::client
