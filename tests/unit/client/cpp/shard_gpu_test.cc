// Shards that lose their GPU: it is never taken for the caller's.
#include "gtest/gtest.h"
#include "proto/types/refusal.h"
#include "tests/unit/client/cpp/client_fixture.h"

namespace reprise::client {
namespace {

using reprise::testing::ChainNamed;
using reprise::testing::HasContent;
using reprise::testing::SmallSpec;
using testing::Blocks;
using testing::FakeCluster;
using testing::FakeShard;
using testing::kSession;

// Two shards with device memory alone.
class ShardGpuTest : public ::testing::Test {
 protected:
  StoreResult Store(Client& client) {
    Blocks blocks(*spec_, keys_, true);
    auto stored = client.Store(
        {.spec = spec_, .keys = keys_, .session = kSession, .memory = blocks.Memory()});
    REPRISE_CHECK(stored.ok());
    return *stored;
  }
  // Fetches everything, and fails the test when a block that counts has other bytes than were
  // stored.
  FetchResult Fetch(const std::shared_ptr<client::Run>& run) {
    Blocks blocks(*spec_, keys_, false);
    auto fetched =
        client_->Fetch(run, {.first = 0, .count = run->blocks(), .memory = blocks.Memory()});
    REPRISE_CHECK(fetched.ok());
    for (uint32_t i = 0; i < fetched->blocks; ++i) {
      EXPECT_TRUE(HasContent(keys_[i], 0, blocks.bytes[i])) << "block " << i;
    }
    return *fetched;
  }
  std::shared_ptr<client::Run> Acquire() {
    auto found = client_->Acquire({.spec = spec_, .keys = keys_, .session = kSession});
    REPRISE_CHECK(found.ok());
    return found->run;
  }

  const std::vector<BlockKey> keys_ = ChainNamed("chain", 12);
  FakeCluster cluster_{2, /*dram_bytes=*/0, /*hbm_bytes=*/8 << 20};
  FakeShard& home_ = cluster_.Home(kSession);
  FakeShard& replica_ = cluster_.Placed(kSession, 1);
  std::unique_ptr<Client> client_ = cluster_.MakeClient();
  std::shared_ptr<const ClientSpec> spec_ = *client_->OpenSpec(SmallSpec());
};

TEST_F(ShardGpuTest, ARunIsRescuedFromTheReplica) {
  ASSERT_EQ(Store(*client_).stored, keys_.size());
  ASSERT_EQ(Store(*cluster_.MakeClient({.shards = {replica_.address()}})).stored, keys_.size());
  cluster_.router_blind = true;  // so that all of it is home's
  const auto run = Acquire();
  ASSERT_EQ(run->blocks(), keys_.size());
  home_.hbm->lost = true;
  const FetchResult fetched = Fetch(run);
  EXPECT_EQ(fetched.blocks, keys_.size()) << fetched.status;
  EXPECT_EQ(client_->counters().blocks_rescued.load(), keys_.size());
}

TEST_F(ShardGpuTest, AStoreGoesOnToTheNextShard) {
  home_.hbm->lost = true;
  const StoreResult stored = Store(*client_);
  EXPECT_EQ(stored.stored, keys_.size()) << stored.status;
  EXPECT_EQ(replica_.Described("blocks"), keys_.size());
  EXPECT_EQ(Store(*client_).present, keys_.size()) << "home says at once that it takes nothing";
}

TEST_F(ShardGpuTest, ShardsThatFailInARowAreLeftAlone) {
  ASSERT_EQ(Store(*client_).stored, keys_.size());
  const auto run = Acquire();
  home_.hbm->lost = true;
  for (int i = 0; i < limits::kBreakerFailuresMax; ++i) {
    const FetchResult fetched = Fetch(run);
    EXPECT_EQ(fetched.blocks, 0u);
    EXPECT_EQ(RefusalReason(fetched.status), "SHARD_GPU_LOST") << fetched.status;
  }
  for (const ShardView& shard : client_->Shards()) {
    EXPECT_EQ(shard.breaker_opened, shard.address == home_.address() ? 1u : 0u) << shard.address;
  }
}

}  // namespace
}  // namespace reprise::client
