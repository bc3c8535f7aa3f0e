#include "service/shard/claim_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/block_content.h"

namespace reprise::shard {
namespace {

using reprise::testing::ChainNamed;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

constexpr KeySpaceId kSpace(1);
const absl::Time kNow = absl::UnixEpoch();

SpaceKey In(KeySpaceId space, const BlockKey& key) {
  return SpaceKey{space, key};
}

class ClaimTableTest : public ::testing::Test {
 protected:
  Claim Named(const std::string& name, uint8_t rank = 50,
              absl::Duration ttl = absl::Hours(1)) const {
    return {.space = kSpace, .owner = owner_, .name = name, .rank = rank, .ends = kNow + ttl};
  }
  const std::shared_ptr<TenantTally> owner_ = std::make_shared<TenantTally>();
};

TEST_F(ClaimTableTest, FindsAClaimByItsNameInItsKeySpaceAlone) {
  ClaimTable table;
  const ClaimId id = table.Add(Named("agent"));
  EXPECT_EQ(table.Find(kSpace, "agent"), id);
  EXPECT_EQ(table.Find(kSpace, "other"), std::nullopt);
  EXPECT_EQ(table.Find(KeySpaceId(2), "agent"), std::nullopt);
  EXPECT_THAT(table.Of(kSpace), ElementsAre(id));
  EXPECT_THAT(table.Of(KeySpaceId(2)), IsEmpty());
  table.Erase(id);
  EXPECT_EQ(table.Find(kSpace, "agent"), std::nullopt);
  EXPECT_EQ(table.size(), 0u);
}

TEST_F(ClaimTableTest, ABlockHasTheRankOfTheStrongestClaimThatRestsOnIt) {
  ClaimTable table;
  const ClaimId weak = table.Add(Named("weak", 10));
  const ClaimId strong = table.Add(Named("strong", 90));
  table.Rest(weak, 7);
  table.Rest(strong, 7);
  EXPECT_THAT(table.RestingOn(7), UnorderedElementsAre(weak, strong));
  EXPECT_EQ(table.StrongestOn(7), 90);
  table.Rest(strong, 8);
  EXPECT_EQ(table.StrongestOn(7), 10);
  EXPECT_EQ(table.StrongestOn(8), 90);
  table.Rest(weak, kNoBlock);
  EXPECT_EQ(table.StrongestOn(7), 0);
  EXPECT_THAT(table.RestingOn(7), IsEmpty());
}

TEST_F(ClaimTableTest, AClaimWaitsForTheNextKeyAheadAndForNoOther) {
  const std::vector<BlockKey> keys = ChainNamed("c", 3);
  ClaimTable table;
  Claim claim = Named("agent");
  claim.ahead = {keys[2], keys[1]};
  const ClaimId id = table.Add(claim);
  EXPECT_EQ(table.keys_ahead(), 2u);
  EXPECT_THAT(table.WaitingFor(In(kSpace, keys[1])), ElementsAre(id));
  EXPECT_THAT(table.WaitingFor(In(kSpace, keys[2])), IsEmpty());
  EXPECT_THAT(table.WaitingFor(In(KeySpaceId(2), keys[1])), IsEmpty());
  table.PassNext(id);
  EXPECT_THAT(table.WaitingFor(In(kSpace, keys[1])), IsEmpty());
  EXPECT_THAT(table.WaitingFor(In(kSpace, keys[2])), ElementsAre(id));
  table.PutAhead(id, keys[1]);
  table.PutAhead(id, keys[0]);
  EXPECT_EQ(table.keys_ahead(), 3u);
  EXPECT_EQ(owner_->keys_ahead, 3u);
  EXPECT_EQ(owner_->claims, 1u);
  EXPECT_THAT(table.WaitingFor(In(kSpace, keys[0])), ElementsAre(id));
  EXPECT_THAT(table.WaitingFor(In(kSpace, keys[2])), IsEmpty());
  table.ForgetAhead(id);
  EXPECT_EQ(table.keys_ahead(), 0u);
  EXPECT_EQ(owner_->keys_ahead, 0u);
  table.Erase(id);
  EXPECT_EQ(owner_->claims, 0u);
  for (const BlockKey& key : keys) EXPECT_THAT(table.WaitingFor(In(kSpace, key)), IsEmpty());
}

TEST_F(ClaimTableTest, AClaimThatIsErasedWaitsNoMore) {
  const std::vector<BlockKey> keys = ChainNamed("c", 2);
  ClaimTable table;
  Claim claim = Named("agent");
  claim.ahead = {keys[1], keys[0]};
  table.Erase(table.Add(claim));
  EXPECT_EQ(table.keys_ahead(), 0u);
  EXPECT_THAT(table.WaitingFor(In(kSpace, keys[0])), IsEmpty());
}

TEST_F(ClaimTableTest, ClaimsAreOverdueInTheOrderOfTheirEndsHoweverTheyCame) {
  ClaimTable table;
  const ClaimId late = table.Add(Named("late", 50, absl::Minutes(2)));
  const ClaimId soon = table.Add(Named("soon", 50, absl::Minutes(1)));
  EXPECT_EQ(table.Overdue(kNow), std::nullopt);
  EXPECT_EQ(table.Overdue(kNow + absl::Minutes(1)), soon);
  table.Erase(soon);
  EXPECT_EQ(table.Overdue(kNow + absl::Minutes(1)), std::nullopt);
  EXPECT_EQ(table.Overdue(kNow + absl::Minutes(2)), late);
}

}  // namespace
}  // namespace reprise::shard
