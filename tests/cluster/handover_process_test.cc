// Shard processes that hand their blocks over: on SIGTERM, and when `reprise drain` asks for it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/cluster/router_cluster.h"
#include "tests/support/command.h"

namespace reprise::testing {
namespace {

const CacheSpec kSpec = SpecOf(16 << 10);
constexpr uint32_t kBlocks = 20;
constexpr int kExitNotFound = 3;

Answer Drain(const RouterCluster& cluster, const std::string& shard) {
  return Reprise({"drain", shard, "--router", cluster.router_address()});
}

class HandoverProcessTest : public ::testing::Test {
 protected:
  void SetUp() override {
    cluster_.Start(3);
    // A shard knows the others once it has read who they are.
    for (const char* id : {"shard-0", "shard-1", "shard-2"}) {
      ASSERT_TRUE(Eventually([&] { return KnowsOthers(id); })) << id;
    }
  }
  bool KnowsOthers(const std::string& id) {
    const auto link = cluster_.Link(id);
    const auto opened = link->OpenSpec(kSpec, Soon());
    const auto other = id == "shard-0" ? "shard-1" : "shard-0";
    const auto asked = ChainNamed("nothing", 1);
    return link->Pull({.spec = opened->handle, .keys = asked, .from = {other}}, Soon()).ok();
  }
  std::vector<BlockKey> StoreAt(const std::string& id, const std::string& session) {
    const auto keys = ChainNamed(session, kBlocks);
    EXPECT_TRUE(StoreSession(*cluster_.Link(id), kSpec, keys, session).ok());
    return keys;
  }

  RouterCluster cluster_{/*replication=*/1};
};

TEST_F(HandoverProcessTest, AShardThatIsTerminatedHandsOverWhatItAloneHas) {
  std::vector<std::vector<BlockKey>> chains;
  for (int i = 0; i < 8; ++i) chains.push_back(StoreAt("shard-0", absl::StrCat("chat-", i)));
  cluster_.shard("shard-0").Signal(SIGTERM);
  EXPECT_EQ(cluster_.shard("shard-0").Wait(kPatience), std::optional<int>(0));
  for (const auto& keys : chains) {
    uint32_t found = 0;
    for (const char* id : {"shard-1", "shard-2"}) {
      found += FetchChain(*cluster_.Link(id), kSpec, keys).value_or(0);
    }
    EXPECT_EQ(found, kBlocks);
  }
}

TEST_F(HandoverProcessTest, AClaimGoesWithTheBlocksThatItKeeps) {
  const auto keys = StoreAt("shard-0", "agent");
  {
    const auto link = cluster_.Link("shard-0");
    const auto opened = link->OpenSpec(kSpec, Soon());
    ASSERT_TRUE(opened.ok());
    const auto pinned = link->Hint(
        {.spec = opened->handle,
         .keys = keys,
         .hint = {.verb = HintVerb::kPin, .claim_id = "tool call", .ttl = absl::Minutes(10)}},
        Soon());
    ASSERT_TRUE(pinned.ok()) << pinned.status();
    EXPECT_EQ(pinned->outcome, HintOutcome::kApplied);
  }
  cluster_.shard("shard-0").Signal(SIGTERM);
  EXPECT_EQ(cluster_.shard("shard-0").Wait(kPatience), std::optional<int>(0));
  uint32_t kept = 0;
  for (const char* id : {"shard-1", "shard-2"}) {
    const auto link = cluster_.Link(id);
    const auto opened = link->OpenSpec(kSpec, Soon());
    ASSERT_TRUE(opened.ok());
    const auto released = link->Hint(
        {.spec = opened->handle, .hint = {.verb = HintVerb::kRelease, .claim_id = "tool call"}},
        Soon());
    ASSERT_TRUE(released.ok()) << released.status();
    kept += released->blocks;
  }
  EXPECT_EQ(kept, kBlocks);
}

TEST_F(HandoverProcessTest, AShardThatIsInterruptedHandsOverNothing) {
  const auto keys = StoreAt("shard-0", "chat");
  cluster_.shard("shard-0").Signal(SIGINT);
  EXPECT_EQ(cluster_.shard("shard-0").Wait(kPatience), std::optional<int>(0));
  for (const char* id : {"shard-1", "shard-2"}) {
    EXPECT_EQ(FetchChain(*cluster_.Link(id), kSpec, keys).value_or(0), 0u) << id;
  }
}

TEST_F(HandoverProcessTest, SessionsOfADrainedShardGoOnWhereTheirBlocksAre) {
  std::map<std::string, std::vector<BlockKey>> chains;
  for (int i = 0; i < 6; ++i) {
    const std::string session = absl::StrCat("chat-", i);
    chains[session] = StoreAt("shard-0", session);
    ASSERT_TRUE(cluster_.AwaitRuns(kSpec, chains[session], {{"shard-0", kBlocks}}));
  }
  const Answer drained = Drain(cluster_, "shard-0");
  EXPECT_EQ(drained.exit_code, 0);
  EXPECT_EQ(drained.json["shard"], "shard-0");
  EXPECT_EQ(drained.json["chains_safe"], 6);
  EXPECT_EQ(drained.json["blocks_copied"], 6 * kBlocks);
  ASSERT_TRUE(cluster_.AwaitState(v1::SHARD_STATE_DRAINING, 1));
  for (const auto& [session, keys] : chains) {
    EXPECT_TRUE(Eventually([&] {
      const std::string home = cluster_.Route(session).home().shard_id();
      return home != "shard-0" && cluster_.Locate(kSpec, keys)[home] == kBlocks;
    })) << session;
  }
  // It still serves, until it is stopped.
  EXPECT_EQ(FetchChain(*cluster_.Link("shard-0"), kSpec, chains["chat-0"]).value_or(0), kBlocks);
  cluster_.shard("shard-0").Signal(SIGTERM);
  EXPECT_EQ(cluster_.shard("shard-0").Wait(kPatience), std::optional<int>(0));
}

TEST_F(HandoverProcessTest, AShardThatDoesNotExistIsNamed) {
  EXPECT_EQ(Drain(cluster_, "shard-9").exit_code, kExitNotFound);
}

}  // namespace
}  // namespace reprise::testing
