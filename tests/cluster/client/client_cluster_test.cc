// The client against real processes: both forms of memory, both lanes, and what happens when shards
// are killed, stopped and corrupted.
#include <thread>

#include "absl/time/clock.h"
#include "client/cpp/client.h"
#include "client/cpp/prefix_hasher.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/types/refusal.h"
#include "tests/cluster/client/local_cluster.h"
#include "tests/support/block_content.h"

namespace reprise::client {
namespace {

using reprise::testing::ChainNamed;
using reprise::testing::FillContent;
using reprise::testing::HasContent;
using testing::LocalCluster;
using testing::ShardProcess;

constexpr char kSession[] = "user-1";
const absl::Duration kPatience = absl::Seconds(60);  // only a hang reaches it

// Blocks of 64 KiB.
CacheSpec Spec() {
  CacheSpec spec;
  spec.model = "cluster-test";
  spec.attention = AttentionKind::kGqa;
  spec.dtype = DataType::kBf16;
  spec.layers = 4;
  spec.kv_heads = 4;
  spec.head_dim = 64;
  spec.block_tokens = 16;
  return spec;
}

struct Blocks {
  Blocks(const ClientSpec& spec, const std::vector<BlockKey>& keys, bool fill) {
    for (const BlockKey& key : keys) {
      bytes.emplace_back(spec.layout.block_bytes);
      if (fill) FillContent(key, 0, bytes.back());
    }
  }
  CallerMemory Memory() {
    CallerMemory memory;
    for (auto& block : bytes) memory.buffers.push_back(block.data());
    return memory;
  }
  std::vector<std::vector<uint8_t>> bytes;
};

class ClientClusterTest : public ::testing::Test {
 protected:
  ClientClusterTest() : client_(MakeClient()), spec_(*client_->OpenSpec(Spec())) {}

  std::unique_ptr<Client> MakeClient(std::vector<LaneKind> lanes = {LaneKind::kView,
                                                                    LaneKind::kStream}) {
    auto client = Client::Create({.routers = {cluster_.router()},
                                  .name = "cluster-test",
                                  .timeout = absl::Seconds(20),
                                  .lanes = std::move(lanes)});
    REPRISE_CHECK(client.ok());
    return *std::move(client);
  }

  StoreResult Store(Client& client, const std::vector<BlockKey>& keys,
                    const std::string& session = kSession) {
    Blocks blocks(*spec_, keys, true);
    auto result =
        client.Store({.spec = spec_, .keys = keys, .session = session, .memory = blocks.Memory()});
    REPRISE_CHECK(result.ok());
    return *result;
  }
  AcquireResult Acquire(Client& client, const std::vector<BlockKey>& keys,
                        const std::string& session = kSession, absl::Duration timeout = {}) {
    auto result =
        client.Acquire({.spec = spec_, .keys = keys, .session = session, .timeout = timeout});
    REPRISE_CHECK(result.ok());
    return *result;
  }
  // Every block that counts must have the bytes that were stored.
  FetchResult Fetch(Client& client, const std::shared_ptr<client::Run>& run,
                    const std::vector<BlockKey>& keys, absl::Duration timeout = {}) {
    Blocks blocks(*spec_, keys, false);
    auto result = client.Fetch(
        run, {.first = 0, .count = run->blocks(), .memory = blocks.Memory(), .timeout = timeout});
    REPRISE_CHECK(result.ok());
    for (uint32_t i = 0; i < result->blocks; ++i)
      EXPECT_TRUE(HasContent(keys[i], 0, blocks.bytes[i])) << "block " << i;
    return *result;
  }
  // Returns when the shard has all of it.
  void AwaitStoredAt(const ShardProcess& shard, const std::vector<BlockKey>& keys) {
    auto direct = Client::Create({.shards = {shard.address}, .timeout = absl::Seconds(20)});
    const absl::Time give_up = absl::Now() + kPatience;
    while (Acquire(**direct, keys).run->blocks() < keys.size()) {
      ASSERT_LT(absl::Now(), give_up)
          << shard.id << " never got the replica. " << client_->StatsJson();
      absl::SleepFor(absl::Milliseconds(10));
    }
  }

  LocalCluster cluster_;
  std::unique_ptr<Client> client_;
  std::shared_ptr<const ClientSpec> spec_;
};

TEST_F(ClientClusterTest, BlocksComeBackByEachLane) {
  struct Row {
    std::vector<LaneKind> lanes;
    LaneKind served;
  };
  const Row rows[] = {{{LaneKind::kStream}, LaneKind::kStream},
                      {{LaneKind::kView, LaneKind::kStream}, LaneKind::kView}};
  for (const Row& row : rows) {
    SCOPED_TRACE(LaneKindName(row.served));
    auto client = MakeClient(row.lanes);
    const auto keys = ChainNamed(LaneKindName(row.served), 40);
    const StoreResult stored = Store(*client, keys);
    EXPECT_EQ(stored.stored, 40u) << stored.status;
    const AcquireResult acquired = Acquire(*client, keys);
    ASSERT_EQ(acquired.run->blocks(), 40u) << acquired.status;
    const FetchResult fetched = Fetch(*client, acquired.run, keys);
    EXPECT_EQ(fetched.blocks, 40u) << fetched.status;
    EXPECT_EQ(fetched.by_lane[static_cast<size_t>(row.served)], 40u);
    EXPECT_EQ(fetched.by_tier[static_cast<size_t>(Tier::kDram)], 40u);
  }
}

TEST_F(ClientClusterTest, PagedTensorsAreRestoredIntoOtherPagesByEachLane) {
  const BlockLayout& layout = spec_->layout;
  constexpr uint32_t kPageTokens = 8, kPages = 32, kBlocks = 10;
  const int64_t token = static_cast<int64_t>(layout.row_data_bytes * layout.heads);
  const int64_t page = token * kPageTokens;
  const auto make = [&](std::vector<std::vector<uint8_t>>& tensors) {
    std::vector<kernels::PagedPlane> planes;
    for (uint32_t i = 0; i < layout.layers * layout.planes; ++i) {
      tensors.emplace_back(static_cast<size_t>(page) * kPages);
      planes.push_back(
          {tensors.back().data(), page, static_cast<int64_t>(layout.row_data_bytes), token});
    }
    return *MakePagedPlan(layout, std::move(planes), kPageTokens);
  };
  std::vector<std::vector<uint8_t>> from, to;
  CallerMemory source{.buffers = {}, .plan = make(from), .pages = {}};
  for (size_t i = 0; i < from.size(); ++i) FillContent({}, i, from[i]);
  CallerMemory target{.buffers = {}, .plan = make(to), .pages = {}};
  for (uint32_t i = 0; i < 2 * kBlocks; ++i) {
    source.pages.push_back((i * 7) % kPages);
    target.pages.push_back((i * 11 + 3) % kPages);
  }
  for (LaneKind lane : {LaneKind::kStream, LaneKind::kView}) {
    SCOPED_TRACE(LaneKindName(lane));
    auto client = MakeClient({lane, LaneKind::kStream});
    const auto keys = ChainNamed(absl::StrCat("paged ", LaneKindName(lane)), kBlocks);
    const auto stored =
        client->Store({.spec = spec_, .keys = keys, .session = kSession, .memory = source});
    ASSERT_EQ(stored->stored, kBlocks) << stored->status;
    const AcquireResult acquired = Acquire(*client, keys);
    ASSERT_EQ(acquired.run->blocks(), kBlocks);
    for (auto& tensor : to) std::fill(tensor.begin(), tensor.end(), 0);
    const auto fetched =
        client->Fetch(acquired.run, {.first = 0, .count = kBlocks, .memory = target});
    ASSERT_EQ(fetched->blocks, kBlocks) << fetched->status;
    for (size_t plane = 0; plane < to.size(); ++plane) {
      for (size_t i = 0; i < source.pages.size(); ++i) {
        ASSERT_EQ(std::memcmp(&from[plane][source.pages[i] * page],
                              &to[plane][target.pages[i] * page], static_cast<size_t>(page)),
                  0)
            << "plane " << plane << " page " << i;
      }
    }
  }
}

TEST_F(ClientClusterTest, TheReplicaServesWhenHomeIsKilled) {
  const auto keys = ChainNamed("chain", 30);
  ASSERT_EQ(Store(*client_, keys).stored, 30u);
  AwaitStoredAt(cluster_.Placed(kSession, 1), keys);
  LocalCluster::Signal(cluster_.Placed(kSession, 0), SIGKILL);
  for (auto* client : {client_.get(), MakeClient().release()}) {
    const AcquireResult acquired = Acquire(*client, keys);
    ASSERT_EQ(acquired.run->blocks(), 30u) << acquired.status;
    EXPECT_EQ(Fetch(*client, acquired.run, keys).blocks, 30u);
    if (client != client_.get()) delete client;
  }
  // And the conversation goes on: new blocks are stored at the next shard.
  auto longer = ChainNamed("chain", 40);
  const StoreResult stored = Store(*client_, longer);
  EXPECT_EQ(stored.stored + stored.present, 40u) << stored.status;
  EXPECT_EQ(Acquire(*client_, longer).run->blocks(), 40u);
}

TEST_F(ClientClusterTest, AShardKilledWhileItIsReadFromCostsNoBlockThatItsReplicaHas) {
  const auto keys = ChainNamed("chain", 300);
  auto client = MakeClient({LaneKind::kStream});
  ASSERT_EQ(Store(*client, keys).stored, 300u);
  AwaitStoredAt(cluster_.Placed(kSession, 1), keys);
  const AcquireResult acquired = Acquire(*client, keys);
  ASSERT_EQ(acquired.run->blocks(), 300u);
  Blocks blocks(*spec_, keys, false);
  auto fetch =
      *client->StartFetch(acquired.run, {.first = 0, .count = 300, .memory = blocks.Memory()});
  LocalCluster::Signal(cluster_.Placed(kSession, 0), SIGKILL);
  ASSERT_TRUE(fetch.Wait(kPatience));
  const FetchResult fetched = fetch.Take();
  EXPECT_EQ(fetched.blocks, 300u) << fetched.status;
  for (uint32_t i = 0; i < fetched.blocks; ++i)
    ASSERT_TRUE(HasContent(keys[i], 0, blocks.bytes[i])) << i;
}

TEST_F(ClientClusterTest, AShardKilledWhileItIsWrittenToLeavesWholeBlocksOrNothing) {
  const auto keys = ChainNamed("chain", 300);
  Blocks blocks(*spec_, keys, true);
  auto client = MakeClient({LaneKind::kStream});
  Acquire(*client, keys);  // attached before the store begins
  auto store = *client->StartStore(
      {.spec = spec_, .keys = keys, .session = kSession, .memory = blocks.Memory()});
  LocalCluster::Signal(cluster_.Placed(kSession, 0), SIGKILL);
  ASSERT_TRUE(store.Wait(kPatience));
  const StoreResult stored = store.Take();
  EXPECT_EQ(stored.stored + stored.present + stored.refused, 300u);
  const AcquireResult acquired = Acquire(*client, keys);
  EXPECT_EQ(Fetch(*client, acquired.run, keys).blocks, acquired.run->blocks());
  // What the store says is stored is found: it went to the next shard.
  EXPECT_GE(acquired.run->blocks(), stored.stored);
}

TEST_F(ClientClusterTest, AStoppedShardCostsOneDeadlineAndThenNothing) {
  const auto keys = ChainNamed("chain", 30);
  ASSERT_EQ(Store(*client_, keys).stored, 30u);
  AwaitStoredAt(cluster_.Placed(kSession, 1), keys);
  const ShardProcess& home = cluster_.Placed(kSession, 0);
  LocalCluster::Signal(home, SIGSTOP);
  // Returns: by its deadline, or sooner with the replica's blocks.
  const AcquireResult first = Acquire(*client_, keys, kSession, absl::Seconds(3));
  EXPECT_TRUE(first.run->blocks() == 30u || absl::IsDeadlineExceeded(first.status)) << first.status;
  const uint64_t late = client_->counters().calls_late;
  for (int i = 0; i < 20; ++i) {
    const AcquireResult next = Acquire(*client_, keys, kSession, absl::Seconds(3));
    ASSERT_EQ(next.run->blocks(), 30u) << next.status;
    ASSERT_EQ(Fetch(*client_, next.run, keys).blocks, 30u);
  }
  EXPECT_EQ(client_->counters().calls_late.load(), late);
  bool out = false;
  for (const ShardView& view : client_->Shards()) {
    out = out || (view.shard_id == home.id && view.breaker != Breaker::State::kClosed);
  }
  EXPECT_TRUE(out);
  // When it goes on, it is used again.
  LocalCluster::Signal(home, SIGCONT);
  const absl::Time give_up = absl::Now() + kPatience;
  // The session itself may live at the replica by now; new ones are shared among all shards.
  int sessions = 0;
  const auto back = [&] {
    const std::string session = absl::StrCat("later-", ++sessions);
    Acquire(*client_, ChainNamed(session, 1), session, absl::Seconds(3));
    for (const ShardView& view : client_->Shards()) {
      if (view.shard_id == home.id) return view.breaker == Breaker::State::kClosed && view.attached;
    }
    return false;
  };
  while (!back()) {
    ASSERT_LT(absl::Now(), give_up);
    absl::SleepFor(absl::Milliseconds(20));
  }
}

TEST_F(ClientClusterTest, AShardStoppedInTheMiddleOfAReadIsLeftByTheDeadline) {
  const auto keys = ChainNamed("chain", 200);
  auto client = MakeClient({LaneKind::kStream});
  ASSERT_EQ(Store(*client, keys).stored, 200u);
  const AcquireResult acquired = Acquire(*client, keys);
  ASSERT_EQ(acquired.run->blocks(), 200u);
  for (const ShardProcess& shard : cluster_.shards()) LocalCluster::Signal(shard, SIGSTOP);
  const FetchResult fetched = Fetch(*client, acquired.run, keys, absl::Seconds(2));
  EXPECT_LT(fetched.blocks, 200u);
  EXPECT_FALSE(fetched.status.ok());
}

TEST_F(ClientClusterTest, AFlippedByteIsAShorterRunAndIsCounted) {
  for (LaneKind lane : {LaneKind::kStream, LaneKind::kView}) {
    SCOPED_TRACE(LaneKindName(lane));
    auto client = MakeClient({lane, LaneKind::kStream});
    const auto keys = ChainNamed(absl::StrCat("flip ", LaneKindName(lane)), 20);
    ASSERT_EQ(Store(*client, keys).stored, 20u);
    std::vector<uint8_t> block(spec_->layout.block_bytes);
    FillContent(keys[12], 0, block);
    ASSERT_EQ(LocalCluster::FlipStored(cluster_.Placed(kSession, 0), block), 1);
    const AcquireResult acquired = Acquire(*client, keys);
    const FetchResult fetched = Fetch(*client, acquired.run, keys);
    EXPECT_EQ(fetched.blocks, 12u) << fetched.status;
    EXPECT_EQ(fetched.corrupt, 1u);
    EXPECT_EQ(client->counters().blocks_corrupt.load(), 1u);
  }
}

TEST_F(ClientClusterTest, ManyWorkersShareTheClusterWhileAShardDies) {
  constexpr int kWorkers = 6, kRounds = 12, kLength = 12;
  std::vector<std::thread> workers;
  for (int w = 0; w < kWorkers; ++w) {
    workers.emplace_back([&, w] {
      for (int round = 0; round < kRounds; ++round) {
        if (w == 0 && round == kRounds / 2) LocalCluster::Signal(cluster_.Placed("s1", 0), SIGKILL);
        const std::string session = absl::StrCat("s", w);
        const auto keys = ChainNamed(absl::StrCat(session, " ", round), kLength);
        Store(*client_, keys, session);
        const AcquireResult acquired = Acquire(*client_, keys, session);
        if (acquired.run->blocks() > 0) Fetch(*client_, acquired.run, keys);
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  EXPECT_EQ(client_->counters().blocks_corrupt.load(), 0u);
  // The cluster goes on without the dead shard.
  const auto keys = ChainNamed("after", kLength);
  const StoreResult stored = Store(*client_, keys, "s1");
  EXPECT_EQ(stored.stored, static_cast<uint32_t>(kLength)) << stored.status;
  EXPECT_EQ(Acquire(*client_, keys, "s1").run->blocks(), static_cast<uint32_t>(kLength));
}

TEST_F(ClientClusterTest, TheAbiStoresAndFetchesFromC) {
  reprise::testing::Process abi(
      {reprise::testing::BinFolder() + "/reprise_abi_test", cluster_.router()});
  const auto line = abi.ReadLine(kPatience);
  ASSERT_TRUE(line.has_value());
  EXPECT_EQ(*line, "ok");
  EXPECT_EQ(abi.Wait(kPatience), 0);
}

}  // namespace
}  // namespace reprise::client
