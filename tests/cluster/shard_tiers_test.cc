// A shard with device memory above its host memory, as clients see it: the bytes come by the stream
// lane wherever they lie. The device memory cannot be touched by the CPU, so that whoever does not
// copy it through the device dies.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pthread.h>

#include <atomic>
#include <set>
#include <string>

#include "absl/synchronization/mutex.h"
#include "cluster/peer/replication_source.h"
#include "service/shard/engine_source.h"
#include "tests/support/loopback_shard.h"

namespace reprise::testing {
namespace {

using ::testing::ElementsAre;

class ShardTiersTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kMiB = 1 << 20;

  ShardTiersTest() {
    hbm_->guarded = true;
    hbm_->before_copy = [this] { NoteThread(); };
  }
  ~ShardTiersTest() override {
    link_.reset();
    EXPECT_TRUE(shard_.AwaitIdle());
    EXPECT_EQ(shard_.engine().CheckInvariants(), absl::OkStatus());
  }
  cluster::AcquiredRun Acquire(const std::vector<BlockKey>& keys) {
    const cluster::OpenedSpec opened = *link_->OpenSpec(spec_, Soon());
    return *link_->Acquire(opened.handle, keys, 0, Soon());
  }

  // By which thread a copy of device memory is made, while a test wants to know.
  void NoteThread() {
    if (!noting_) return;
    char name[16] = {};
    ::pthread_getname_np(::pthread_self(), name, sizeof(name));
    absl::MutexLock lock(&mu_);
    copiers_.insert(name);
  }

  std::atomic<bool> noting_ = false;
  absl::Mutex mu_;
  std::set<std::string> copiers_ ABSL_GUARDED_BY(mu_);
  const std::shared_ptr<HostHbmControl> hbm_ = std::make_shared<HostHbmControl>();
  LoopbackShard shard_{
      LoopbackShard::Options{.dram_bytes = 32 * kMiB, .hbm_bytes = 16 * kMiB, .hbm = hbm_}};
  std::unique_ptr<cluster::ShardLink> link_ = shard_.Connect();
  const CacheSpec spec_ = SpecOf(3 * kMiB / 2);  // two messages each; eight in hbm
};

TEST_F(ShardTiersTest, BlocksInDeviceMemoryAreWrittenAndReadWhole) {
  const std::vector<BlockKey> keys = ChainNamed("hbm", 5);
  EXPECT_EQ(*StoreChain(*link_, spec_, keys), 5u);
  EXPECT_THAT(Acquire(keys).tiers, ElementsAre(TierRun{Tier::kHbm, 5}));
  EXPECT_EQ(*FetchChain(*link_, spec_, keys), 5u);
}

TEST_F(ShardTiersTest, RunsAcrossTiersAreReadWhole) {
  const std::vector<BlockKey> keys = ChainNamed("long", 12);
  EXPECT_EQ(*StoreChain(*link_, spec_, keys), 12u);
  const cluster::AcquiredRun run = Acquire(keys);
  ASSERT_EQ(run.tiers.size(), 2u);
  EXPECT_EQ(run.tiers[0].tier, Tier::kHbm);
  EXPECT_EQ(run.tiers[1].tier, Tier::kDram);
  EXPECT_EQ(*FetchChain(*link_, spec_, keys), 12u);
}

TEST_F(ShardTiersTest, WhatMovedDownIsReadWhole) {
  const std::vector<BlockKey> first = ChainNamed("first", 6), second = ChainNamed("second", 6);
  EXPECT_EQ(*StoreChain(*link_, spec_, first), 6u);
  EXPECT_EQ(*StoreChain(*link_, spec_, second), 6u);
  EXPECT_EQ(Acquire(first).tiers.back().tier, Tier::kDram);
  EXPECT_EQ(*FetchChain(*link_, spec_, first), 6u);
  EXPECT_EQ(*FetchChain(*link_, spec_, second), 6u);
}

TEST_F(ShardTiersTest, BlocksThatMakeRoomForAReservationAreNotCopiedByAThreadThatServesCalls) {
  const cluster::OpenedSpec opened = *link_->OpenSpec(spec_, Soon());
  EXPECT_EQ(*StoreChain(*link_, spec_, ChainNamed("first", 8)), 8u);
  noting_ = true;
  const auto reserved =
      link_->Reserve({.spec = opened.handle, .keys = ChainNamed("second", 6)}, Soon());
  ASSERT_TRUE(reserved.ok()) << reserved.status();
  noting_ = false;
  absl::MutexLock lock(&mu_);
  EXPECT_TRUE(copiers_.contains("reprise-work"));
  copiers_.erase("reprise-evict");
  EXPECT_THAT(copiers_, ElementsAre("reprise-work"));
}

TEST_F(ShardTiersTest, ADeviceThatFailsIsAnErrorOfTheCallAndNotAWrongByte) {
  const std::vector<BlockKey> keys = ChainNamed("hbm", 2);
  EXPECT_EQ(*StoreChain(*link_, spec_, keys), 2u);
  hbm_->refuses = true;
  EXPECT_TRUE(absl::IsInternal(FetchChain(*link_, spec_, keys).status()));
  EXPECT_FALSE(StoreChain(*link_, spec_, ChainNamed("other", 2)).ok());
  hbm_->refuses = false;
  EXPECT_EQ(*FetchChain(*link_, spec_, keys), 2u);
}

TEST_F(ShardTiersTest, ALostGpuIsToldAsTheShardsAndTheShardGoesOnWithout) {
  const std::vector<BlockKey> keys = ChainNamed("hbm", 2);
  EXPECT_EQ(*StoreChain(*link_, spec_, keys), 2u);
  hbm_->lost = true;
  const absl::Status failed = FetchChain(*link_, spec_, keys).status();
  EXPECT_TRUE(absl::IsInternal(failed)) << failed;
  EXPECT_EQ(RefusalReason(failed), "SHARD_GPU_LOST") << "GPU_LOST would be the caller's own GPU";
  const std::vector<BlockKey> others = ChainNamed("other", 2);
  EXPECT_EQ(*StoreChain(*link_, spec_, others), 2u);
  EXPECT_THAT(Acquire(others).tiers, ElementsAre(TierRun{Tier::kDram, 2}));
  grpc::ClientContext context;
  v1::ShardServiceDescribeResponse described;
  ASSERT_TRUE(shard_.Stub()->Describe(&context, {}, &described).ok());
  ASSERT_EQ(described.tiers_size(), 2);
  EXPECT_TRUE(described.tiers(0).lost());
  EXPECT_FALSE(described.tiers(1).lost());
  EXPECT_EQ(described.blocks(), 2u);
}

TEST_F(ShardTiersTest, TheReplicatorReadsDeviceMemoryThroughTheHost) {
  const std::vector<BlockKey> keys = ChainNamed("hbm", 3);
  EXPECT_EQ(*StoreChain(*link_, spec_, keys), 3u);
  shard::EngineSource source(shard_.engine());
  const auto chain =
      source.Open({.tenant = Tenant{kDefaultTenant}, .spec = spec_, .keys = keys}, 0);
  ASSERT_TRUE(chain.ok()) << chain.status();
  ASSERT_EQ((*chain)->run_blocks(), 3u);
  for (uint32_t i = 0; i < 3; ++i) {
    const auto bytes = (*chain)->Bytes(i);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    EXPECT_TRUE(HasContent(keys[i], 0, *bytes)) << i;
  }
}

}  // namespace
}  // namespace reprise::testing
