// reprise-shard with --hbm: on a GPU of host memory (tests/support/fake_gpu), whose memory kills
// whoever touches it, and on a machine without a GPU.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cluster/link/shard_link.h"
#include "kernels/runtime/device.h"
#include "proto/types/refusal.h"
#include "tests/support/process.h"
#include "tests/support/stored_chain.h"

namespace reprise::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Only a hang reaches it.
constexpr absl::Duration kPatience = absl::Seconds(40);

std::string AddressOf(Process& shard) {
  const std::optional<std::string> line = shard.ReadLine(kPatience);
  EXPECT_TRUE(line.has_value()) << "the shard did not start";
  return line.has_value() ? nlohmann::json::parse(*line)["address"].get<std::string>() : "";
}

class ShardHbmProcessTest : public ::testing::Test {
 protected:
  Process shard_{{BinFolder() + "/reprise-shard-fake-gpu", "--id", "shard-0", "--hbm", "16MiB",
                  "--dram", "32MiB", "--replication", "1", "-o", "json"}};
  std::unique_ptr<cluster::ShardLink> link_ =
      *cluster::ShardLink::Connect({.address = AddressOf(shard_), .client_name = "test"}, Soon());
  const CacheSpec spec_ = SpecOf(3 << 19);  // eight blocks of 1.5 MiB in hbm

  std::vector<TierRun> TiersOf(const std::vector<BlockKey>& keys) {
    const cluster::OpenedSpec opened = *link_->OpenSpec(spec_, Soon());
    const cluster::AcquiredRun run = *link_->Acquire(opened.handle, keys, 0, Soon());
    EXPECT_TRUE(link_->Release(run.lease, Soon()).ok());
    return run.tiers;
  }
};

TEST_F(ShardHbmProcessTest, BlocksAreStoredInGpuMemoryFirstAndReadBackWhole) {
  const std::vector<BlockKey> keys = ChainNamed("hbm", 5);
  EXPECT_EQ(*StoreChain(*link_, spec_, keys), 5u);
  EXPECT_THAT(TiersOf(keys), ElementsAre(TierRun{Tier::kHbm, 5}));
  EXPECT_EQ(*FetchChain(*link_, spec_, keys), 5u);
}

TEST_F(ShardHbmProcessTest, WhatMovedToHostMemoryIsReadBackWholeAndNothingIsLost) {
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(*StoreChain(*link_, spec_, ChainNamed(absl::StrCat(i), 5)), 5u);
  }
  EXPECT_EQ(TiersOf(ChainNamed("0", 5)).back().tier, Tier::kDram);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(*FetchChain(*link_, spec_, ChainNamed(absl::StrCat(i), 5)), 5u) << i;
  }
  shard_.Signal(SIGTERM);
  EXPECT_EQ(shard_.Wait(kPatience), std::optional<int>(0));
}

TEST(ShardThatLosesItsGpuTest, SaysSoAndGoesOnWithItsHostMemory) {
  // Its blocks are written before the sixtieth piece of work, and then read until it comes.
  Process shard({"/usr/bin/env", "REPRISE_FAKE_GPU=lost_after=60",
                 BinFolder() + "/reprise-shard-fake-gpu", "--hbm", "16MiB", "--dram", "32MiB",
                 "--replication", "1", "-o", "json"});
  const auto link =
      *cluster::ShardLink::Connect({.address = AddressOf(shard), .client_name = "test"}, Soon());
  const CacheSpec spec = SpecOf(3 << 19);
  const std::vector<BlockKey> keys = ChainNamed("hbm", 2), others = ChainNamed("others", 2);
  ASSERT_EQ(*StoreChain(*link, spec, keys), 2u);
  absl::Status failed;
  for (int i = 0; i < 60 && failed.ok(); ++i) failed = FetchChain(*link, spec, keys).status();
  EXPECT_EQ(RefusalReason(failed), "SHARD_GPU_LOST") << failed;
  EXPECT_EQ(*StoreChain(*link, spec, others), 2u);
  EXPECT_EQ(*FetchChain(*link, spec, others), 2u);
}

TEST(ShardWithoutGpuTest, HbmIsRefusedInOneSentenceAndDramServes) {
  if (kernels::DeviceCount() > 0) GTEST_SKIP() << "SKIPPED: this machine has a GPU";
  const std::string shard = BinFolder() + "/reprise-shard";
  Process refused({"/bin/sh", "-c", shard + " --hbm 16MiB --dram 16MiB 2>&1"});
  const std::optional<std::string> sentence = refused.ReadLine(kPatience);
  ASSERT_TRUE(sentence.has_value());
  EXPECT_THAT(*sentence, HasSubstr("--hbm wants GPU 0"));
  EXPECT_THAT(*sentence, HasSubstr("leave --hbm out"));
  EXPECT_FALSE(refused.ReadLine(kPatience).has_value()) << "more than one line";
  const std::optional<int> status = refused.Wait(kPatience);
  ASSERT_TRUE(status.has_value());
  EXPECT_TRUE(WIFEXITED(*status) && WEXITSTATUS(*status) == 1) << *status;
  Process serves({shard, "--dram", "16MiB", "-o", "json"});
  EXPECT_NE(AddressOf(serves), "");
}

}  // namespace
}  // namespace reprise::testing
