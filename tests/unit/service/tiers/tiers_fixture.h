// An hbm pool over host memory that the CPU may not touch, above a dram pool.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "service/pool/dram_pool.h"
#include "service/pool/hbm_pool.h"
#include "service/tiers/tiered_pool.h"
#include "tests/support/block_content.h"
#include "tests/support/host_hbm_device.h"

namespace reprise::shard {

class TiersTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kBlock = 100'000;
  static constexpr BlockShape kShape{.block_bytes = kBlock, .section_bytes = kBlock};
  static constexpr Level kHbm = 0, kDram = 1;

  TiersTest() {
    control_->guarded = true;
    std::vector<std::unique_ptr<Pool>> pools;
    pools.push_back(
        *HbmPool::Create(std::make_unique<reprise::testing::HostHbmDevice>(control_), 4 << 20));
    pools.push_back(*DramPool::Create(6 << 20));
    pool_ = std::make_unique<TieredPool>(std::move(pools));
  }

  SlotRef Take(Level level) { return *pool_->Allocate(level, a_, kBlock); }
  // Fills a slot and returns the checksum of what is in it.
  Checksum128 Fill(SlotRef slot, uint64_t seed) {
    std::vector<uint8_t> block(kBlock);
    reprise::testing::FillContent(BlockKey(), seed, block);
    if (pool_->TierOf(slot) == Tier::kHbm) {
      EXPECT_TRUE(pool_->CopyFromHost(block, {pool_->Address(slot), kBlock}).ok());
    } else {
      std::copy(block.begin(), block.end(), pool_->Address(slot));
    }
    return reprise::testing::ChecksumOf(block, kBlock);
  }
  bool Holds(SlotRef slot, uint64_t seed) {
    std::vector<uint8_t> block(kBlock);
    const uint8_t* const at = pool_->Address(slot);
    if (pool_->TierOf(slot) == Tier::kHbm) {
      EXPECT_TRUE(pool_->CopyToHost({at, kBlock}, block).ok());
    } else {
      std::copy(at, at + kBlock, block.begin());
    }
    return reprise::testing::HasContent(BlockKey(), seed, block);
  }

  const KeySpaceId a_{1}, b_{2};
  const std::shared_ptr<reprise::testing::HostHbmControl> control_ =
      std::make_shared<reprise::testing::HostHbmControl>();
  std::unique_ptr<TieredPool> pool_;
};

}  // namespace reprise::shard
