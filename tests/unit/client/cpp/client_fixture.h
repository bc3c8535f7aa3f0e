// A client over a cluster in this process, for tests of its verbs.
#pragma once

#include <memory>
#include <vector>

#include "client/cpp/client.h"
#include "gtest/gtest.h"
#include "tests/unit/client/cpp/fake_cluster.h"

namespace reprise::client::testing {

inline constexpr char kSession[] = "user-1";
// Above kHungCallMin, so that running into it says that a shard hangs.
inline constexpr absl::Duration kShort = absl::Milliseconds(600);

inline std::vector<BlockKey> Prefix(const std::vector<BlockKey>& keys, size_t blocks) {
  return {keys.begin(), keys.begin() + blocks};
}

// Blocks of a chain in memory, one buffer each.
struct Blocks {
  Blocks(const ClientSpec& spec, const std::vector<BlockKey>& keys, bool fill) {
    for (const BlockKey& key : keys) {
      bytes.emplace_back(spec.layout.block_bytes);
      if (fill) reprise::testing::FillContent(key, 0, bytes.back());
    }
  }
  CallerMemory Memory(size_t first = 0) {
    CallerMemory memory;
    for (size_t i = first; i < bytes.size(); ++i) memory.buffers.push_back(bytes[i].data());
    return memory;
  }
  std::vector<std::vector<uint8_t>> bytes;
};

class ClientTest : public ::testing::Test {
 protected:
  ClientTest()
      : cluster_(3),
        client_(cluster_.MakeClient()),
        spec_(*client_->OpenSpec(reprise::testing::SmallSpec())) {}

  StoreResult Store(const std::vector<BlockKey>& keys, uint32_t first = 0,
                    Client* client = nullptr) {
    Blocks blocks(*spec_, keys, true);
    auto result = (client != nullptr ? client : client_.get())
                      ->Store({.spec = spec_,
                               .keys = keys,
                               .first = first,
                               .session = kSession,
                               .memory = blocks.Memory(first)});
    REPRISE_CHECK(result.ok());
    return *result;
  }
  // Straight into one shard, as its replicator would.
  void Put(FakeShard& shard, const std::vector<BlockKey>& keys) {
    auto direct = cluster_.MakeClient({.shards = {shard.address()}});
    ASSERT_EQ(Store(keys, 0, direct.get()).stored, keys.size());
  }
  AcquireResult Acquire(const std::vector<BlockKey>& keys, absl::Duration timeout = {},
                        uint32_t first_block = 0) {
    auto result = client_->Acquire({.spec = spec_,
                                    .keys = keys,
                                    .session = kSession,
                                    .first_block = first_block,
                                    .timeout = timeout});
    REPRISE_CHECK(result.ok());
    return *result;
  }
  // Fetches the whole run, and fails the test when a block that counts has other bytes than were
  // stored.
  FetchResult Fetch(const std::shared_ptr<client::Run>& run, const std::vector<BlockKey>& keys,
                    uint32_t first = 0, absl::Duration timeout = {}) {
    Blocks blocks(*spec_, keys, false);
    auto result = client_->Fetch(run, {.first = first,
                                       .count = run->blocks() - first,
                                       .memory = blocks.Memory(first),
                                       .timeout = timeout});
    REPRISE_CHECK(result.ok());
    for (uint32_t i = first; i < first + result->blocks; ++i) {
      EXPECT_TRUE(reprise::testing::HasContent(keys[i], 0, blocks.bytes[i])) << "block " << i;
    }
    return *result;
  }
  void AwaitNoLeases() {
    // Releases run on the client's threads: once those are joined, all are done.
    client_.reset();
    for (auto& shard : cluster_.shards())
      EXPECT_EQ(shard->Described("leases"), 0u) << shard->id().name;
  }

  FakeCluster cluster_;
  std::unique_ptr<Client> client_;
  std::shared_ptr<const ClientSpec> spec_;
};

}  // namespace reprise::client::testing
