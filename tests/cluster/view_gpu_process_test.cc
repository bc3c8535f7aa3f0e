// A whole shard with blocks in (fake) GPU memory, and a caller on its machine: the view lane
// carries them where both have a GPU, and the stream lane where the caller has none.
#include <string>
#include <vector>

#include "cluster/lanes/fallback_lane.h"
#include "cluster/link/shard_link.h"
#include "gtest/gtest.h"
#include "tests/support/fake_gpu/fake_gpu.h"
#include "tests/support/process.h"
#include "tests/support/stored_chain.h"

namespace reprise::testing {
namespace {

constexpr uint32_t kBlocks = 24;

// A shard that has hbm alone, so that its blocks are there and nowhere else.
class HbmShard {
 public:
  HbmShard()
      : process_({BinFolder() + "/reprise-shard-fake-gpu", "--listen", "127.0.0.1:0", "--hbm",
                  "32MiB", "--dram", "0", "-o", "json"}) {
    const std::string line = process_.ReadLine(absl::Seconds(60)).value_or("");
    const size_t at = line.find("127.0.0.1:");
    if (at != std::string::npos) address_ = line.substr(at, line.find('"', at) - at);
  }
  std::unique_ptr<cluster::ShardLink> Connect() {
    auto link = cluster::ShardLink::Connect({.address = address_,
                                             .client_name = "view-gpu",
                                             .lanes = {LaneKind::kView, LaneKind::kStream}},
                                            Soon());
    EXPECT_TRUE(link.ok()) << link.status();
    return link.ok() ? *std::move(link) : nullptr;
  }

 private:
  Process process_;
  std::string address_;
};

std::vector<BlockKey> Keys(uint8_t chain) {
  std::vector<BlockKey> keys(kBlocks);
  for (uint32_t i = 0; i < kBlocks; ++i) {
    keys[i].bytes[0] = chain;
    keys[i].bytes[1] = static_cast<uint8_t>(i);
  }
  return keys;
}

uint64_t Served(cluster::ShardLink& link, LaneKind kind) {
  return dynamic_cast<lanes::FallbackLane&>(link.lane()).BlocksServed(kind);
}

TEST(ViewGpuProcessTest, BlocksInHbmAreWrittenAndReadWhereTheyLie) {
  ConfigureFakeGpu({});
  {
    HbmShard shard;
    const auto link = shard.Connect();
    ASSERT_NE(link, nullptr);
    const CacheSpec spec = SpecOf(64 << 10);
    // The shard's own checksum of what arrived is the sender's, or the commit is refused.
    const auto stored = StoreChain(*link, spec, Keys(1));
    ASSERT_TRUE(stored.ok()) << stored.status();
    EXPECT_EQ(*stored, kBlocks);
    const auto fetched = FetchChain(*link, spec, Keys(1));
    ASSERT_TRUE(fetched.ok()) << fetched.status();
    EXPECT_EQ(*fetched, kBlocks);
    EXPECT_EQ(Served(*link, LaneKind::kView), 2 * kBlocks);
    EXPECT_GT(UseOfFakeGpu().openings, 0u);
  }
  EXPECT_EQ(UseOfFakeGpu().alive(), 0u) << "the link kept something";
}

TEST(ViewGpuProcessTest, ACallerWithoutAGpuGoesOnByTheStream) {
  ConfigureFakeGpu({.devices = 0});
  HbmShard shard;
  const auto link = shard.Connect();
  ASSERT_NE(link, nullptr);
  const CacheSpec spec = SpecOf(64 << 10);
  const auto stored = StoreChain(*link, spec, Keys(2));
  ASSERT_TRUE(stored.ok()) << stored.status();
  const auto fetched = FetchChain(*link, spec, Keys(2));
  ASSERT_TRUE(fetched.ok()) << fetched.status();
  EXPECT_EQ(*fetched, kBlocks);
  EXPECT_EQ(Served(*link, LaneKind::kStream), 2 * kBlocks);
  EXPECT_EQ(Served(*link, LaneKind::kView), 0u);
}

}  // namespace
}  // namespace reprise::testing
