// Acquires of sessions whose home is remembered: when routers are asked, and who waits for them.
#include <functional>
#include <vector>

#include "proto/types/limits.h"
#include "tests/support/manual_clock.h"
#include "tests/unit/client/cpp/client_fixture.h"

namespace reprise::client::testing {
namespace {

using reprise::testing::ChainNamed;

class RememberedRoutesTest : public ClientTest {
 protected:
  RememberedRoutesTest() {
    client_ = cluster_.MakeClient({}, &clock_);
    spec_ = *client_->OpenSpec(reprise::testing::SmallSpec());
  }
  ~RememberedRoutesTest() override { client_.reset(); }

  void MakeStale() { clock_.Advance(limits::kRouteTtl + absl::Seconds(1)); }
  struct Asked {
    int waited = 0;      // the caller, for its answer
    int background = 0;  // begun while shards were asked
    friend bool operator==(const Asked&, const Asked&) = default;
  };
  // How routers are asked meanwhile.
  Asked AskedBy(const std::function<void()>& what) {
    const int calls = cluster_.router_calls, questions = cluster_.router_questions;
    what();
    const int background = cluster_.router_questions - questions;
    return {.waited = cluster_.router_calls - calls - background, .background = background};
  }
  Asked AskedByAcquire(const std::vector<BlockKey>& keys, uint32_t finds) {
    return AskedBy([&] {
      const AcquireResult got = Acquire(keys);
      EXPECT_EQ(got.run->blocks(), finds) << got.status;
      EXPECT_TRUE(got.status.ok()) << got.status;
    });
  }
  // Any shard but the home that placement gives.
  FakeShard& Elsewhere() { return cluster_.Placed(kSession, 2); }

  const std::vector<BlockKey> keys_ = ChainNamed("chat", 8);
  reprise::testing::ManualClock clock_;
};

TEST_F(RememberedRoutesTest, AHomeThatIsFreshAndHasAllOfItNeedsNoRouter) {
  Store(keys_);
  const Asked first = AskedByAcquire(keys_, 8);
  EXPECT_EQ(first.background, 0);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(AskedByAcquire(keys_, 8), (Asked{0, 0})) << i;
}

TEST_F(RememberedRoutesTest, WhereThePromptRanOutLastRoutersAreAskedMeanwhile) {
  Store(Prefix(keys_, 4));
  // Nobody knows yet that it goes on beyond what home has: routers are asked when that shows.
  EXPECT_EQ(AskedByAcquire(keys_, 4), (Asked{1, 0}));
  EXPECT_EQ(AskedByAcquire(keys_, 4), (Asked{0, 1}));
  Put(Elsewhere(), keys_);
  EXPECT_EQ(AskedByAcquire(keys_, 8), (Asked{0, 1})) << "and what they say is used";
  Store(keys_);
  EXPECT_EQ(AskedByAcquire(keys_, 8), (Asked{0, 1}));
  EXPECT_EQ(AskedByAcquire(keys_, 8), (Asked{0, 0})) << "home had all of the last one";
}

TEST_F(RememberedRoutesTest, AHomeThatIsStaleIsAskedWhileRoutersAre) {
  Store(keys_);
  MakeStale();
  cluster_.router_holds = true;
  // An answer that has not come is waited for by nobody, and asked for again.
  for (int i = 0; i < 2; ++i) EXPECT_EQ(AskedByAcquire(keys_, 8), (Asked{0, 1})) << i;
  cluster_.HearRouters();
  EXPECT_EQ(AskedByAcquire(keys_, 8), (Asked{0, 0})) << "it is remembered when it comes";
}

TEST_F(RememberedRoutesTest, AnAnswerThatComesWhenTheClientIsGoneIsNobodys) {
  Store(keys_);
  MakeStale();
  cluster_.router_holds = true;
  EXPECT_EQ(AskedByAcquire(keys_, 8), (Asked{0, 1}));
  client_.reset();
  cluster_.HearRouters();
}

TEST_F(RememberedRoutesTest, WhatWasAskedMeanwhileIsWaitedForWhereHomeHasNotAll) {
  Store(Prefix(keys_, 4));
  Put(Elsewhere(), keys_);
  MakeStale();
  cluster_.router_holds = true;
  EXPECT_EQ(AskedByAcquire(keys_, 8), (Asked{0, 1}));
  // Heard when it was waited for.
  EXPECT_EQ(AskedByAcquire(Prefix(keys_, 4), 4), (Asked{0, 1})) << "the last one ran out";
  EXPECT_EQ(AskedByAcquire(Prefix(keys_, 4), 4), (Asked{0, 0}));
}

TEST_F(RememberedRoutesTest, AStaleHomeThatIsNotAttachedIsNotAskedBeforeRouters) {
  Store(keys_);
  Put(Elsewhere(), keys_);
  FakeShard& home = cluster_.Home(kSession);
  home.trouble.down = true;
  MakeStale();
  const int acquires = home.trouble.acquires;
  EXPECT_GE(AskedByAcquire(keys_, 8).waited, 1);
  EXPECT_EQ(cluster_.router_questions, 0);
  EXPECT_EQ(home.trouble.acquires, acquires);
}

TEST_F(RememberedRoutesTest, AStaleHomeServesWithoutARouter) {
  Store(Prefix(keys_, 4));
  Put(Elsewhere(), keys_);
  MakeStale();
  cluster_.router_down = true;
  EXPECT_EQ(Acquire(Prefix(keys_, 4)).run->blocks(), 4u);
  EXPECT_EQ(Acquire(keys_).run->blocks(), 8u) << "the others are asked in placement order";
}

TEST_F(RememberedRoutesTest, AHomeThatMovedIsFollowed) {
  Store(keys_);
  FakeShard& before = cluster_.Home(kSession);
  FakeShard& now = Elsewhere();
  Put(now, keys_);
  cluster_.router_home = &now;
  MakeStale();
  const int asked_now = now.trouble.acquires;
  EXPECT_EQ(AskedByAcquire(keys_, 8), (Asked{0, 1}));
  EXPECT_EQ(now.trouble.acquires, asked_now) << "the one that was home has all of it";
  const int asked_before = before.trouble.acquires;
  EXPECT_EQ(AskedByAcquire(keys_, 8), (Asked{0, 0}));
  EXPECT_EQ(now.trouble.acquires, asked_now + 1);
  EXPECT_EQ(before.trouble.acquires, asked_before);
}

// A router's knowledge lags behind what was stored a moment ago: home is asked all the same.
TEST_F(RememberedRoutesTest, AHomeThatMovedIsAskedThoughNoRouterKnowsWhatItHas) {
  EXPECT_EQ(Acquire(keys_).run->blocks(), 0u);
  Put(Elsewhere(), keys_);
  cluster_.router_home = &Elsewhere();
  cluster_.router_blind = true;
  MakeStale();
  EXPECT_EQ(AskedByAcquire(keys_, 8), (Asked{0, 1}));
}

}  // namespace
}  // namespace reprise::client::testing
