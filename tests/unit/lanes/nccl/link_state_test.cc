#include "cluster/lanes/nccl/link_state.h"

#include <random>
#include <string>

#include "gtest/gtest.h"

namespace reprise::lanes {
namespace {

using Step = LinkState::Step;
using State = NcclLinkState;

class LinkStateTest : public ::testing::Test {
 protected:
  static constexpr absl::Duration kSecond = absl::Seconds(1);
  static LinkState::Options Defaults() {
    return {.connect_timeout = 20 * kSecond,
            .idle_max = 300 * kSecond,
            .back_off_min = kSecond,
            .back_off_max = 10 * kSecond};
  }
  void BringUp(LinkState& link) {
    link.Want();
    EXPECT_EQ(link.Next(now_), Step::kConnect);
    EXPECT_EQ(link.Next(now_), Step::kPoll);
    link.Connected();
    EXPECT_EQ(link.state(), State::kWarming);
    EXPECT_EQ(link.Next(now_), Step::kPoll);
    link.Warmed(now_);
    EXPECT_EQ(link.state(), State::kUp);
    EXPECT_EQ(link.Next(now_), Step::kServe);
  }
  void FailAndAbort(LinkState& link) {
    link.Failed(now_);
    EXPECT_EQ(link.Next(now_), Step::kAbort);
    link.Aborted(now_);
  }

  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
};

TEST_F(LinkStateTest, NothingIsConnectedBeforeSomebodyWantsIt) {
  LinkState link(Defaults());
  EXPECT_EQ(link.Next(now_), Step::kWait);
  EXPECT_EQ(link.wake_at(), absl::InfiniteFuture());
  BringUp(link);
}

TEST_F(LinkStateTest, ConnectingAndWarmingShareOneDeadline) {
  LinkState link(Defaults());
  link.Want();
  EXPECT_EQ(link.Next(now_), Step::kConnect);
  now_ += 15 * kSecond;
  EXPECT_EQ(link.Next(now_), Step::kPoll);
  link.Connected();
  now_ += 4 * kSecond;
  EXPECT_EQ(link.Next(now_), Step::kPoll);
  EXPECT_EQ(link.wake_at(), now_ + kSecond);
  now_ += kSecond;
  EXPECT_EQ(link.Next(now_), Step::kAbort);
  EXPECT_EQ(link.state(), State::kFailed);
}

TEST_F(LinkStateTest, AFailedLinkIsLeftByItsAbortAlone) {
  LinkState link(Defaults());
  BringUp(link);
  link.Failed(now_);
  link.Want();
  link.Connected();
  link.Warmed(now_);
  now_ += 1000 * kSecond;
  EXPECT_EQ(link.Next(now_), Step::kAbort);
  EXPECT_EQ(link.state(), State::kFailed);
}

TEST_F(LinkStateTest, EachFailureInARowDoublesTheWaitUpToTheMost) {
  LinkState link(Defaults());
  BringUp(link);
  FailAndAbort(link);
  for (const int wait : {1, 2, 4, 8, 10, 10}) {
    EXPECT_EQ(link.state(), State::kBackingOff);
    EXPECT_EQ(link.wake_at(), now_ + wait * kSecond);
    link.Want();
    now_ += wait * kSecond - absl::Milliseconds(1);
    EXPECT_EQ(link.Next(now_), Step::kWait);
    now_ += absl::Milliseconds(1);
    EXPECT_EQ(link.Next(now_), Step::kConnect);
    FailAndAbort(link);
  }
}

TEST_F(LinkStateTest, AWarmedLinkForgetsItsFailures) {
  LinkState link(Defaults());
  for (int i = 0; i < 4; ++i) {
    BringUp(link);
    FailAndAbort(link);
    EXPECT_EQ(link.wake_at(), now_ + kSecond);
    now_ += kSecond;
  }
}

TEST_F(LinkStateTest, ALinkThatNobodyWantsIsNotRebuilt) {
  LinkState link(Defaults());
  BringUp(link);
  FailAndAbort(link);
  now_ += 1000 * kSecond;
  EXPECT_EQ(link.Next(now_), Step::kWait);
  EXPECT_EQ(link.state(), State::kIdle);
}

TEST_F(LinkStateTest, AnIdleLinkIsNotMadeAgainForThoseWhoWantedItWhileItWasMade) {
  LinkState link(Defaults());
  link.Want();
  EXPECT_EQ(link.Next(now_), Step::kConnect);
  link.Want();
  link.Connected();
  link.Want();
  link.Warmed(now_);
  link.Want();
  now_ += 301 * kSecond;
  EXPECT_EQ(link.Next(now_), Step::kAbort);
  link.Aborted(now_);
  EXPECT_EQ(link.Next(now_), Step::kWait);
  link.Want();
  EXPECT_EQ(link.Next(now_), Step::kConnect);
}

TEST_F(LinkStateTest, AnIdleLinkIsClosedWithoutAWaitAfterIt) {
  LinkState link(Defaults());
  BringUp(link);
  now_ += 299 * kSecond;
  link.Used(now_);
  now_ += 299 * kSecond;
  EXPECT_EQ(link.Next(now_), Step::kServe);
  now_ += kSecond;
  EXPECT_EQ(link.Next(now_), Step::kAbort);
  link.Aborted(now_);
  EXPECT_EQ(link.state(), State::kIdle);
  BringUp(link);
}

TEST_F(LinkStateTest, CloseAbortsWhatThereIsAndStops) {
  LinkState idle(Defaults());
  idle.Close();
  EXPECT_EQ(idle.Next(now_), Step::kStop);

  LinkState up(Defaults());
  BringUp(up);
  up.Close();
  EXPECT_EQ(up.Next(now_), Step::kAbort);
  up.Aborted(now_);
  EXPECT_EQ(up.Next(now_), Step::kStop);

  LinkState connecting(Defaults());
  connecting.Want();
  EXPECT_EQ(connecting.Next(now_), Step::kConnect);
  connecting.Close();
  EXPECT_EQ(connecting.Next(now_), Step::kAbort);
  connecting.Aborted(now_);
  EXPECT_EQ(connecting.Next(now_), Step::kStop);

  LinkState waiting(Defaults());
  BringUp(waiting);
  FailAndAbort(waiting);
  waiting.Close();
  EXPECT_EQ(waiting.Next(now_), Step::kStop);
}

TEST_F(LinkStateTest, AShardsEndIsNotRebuilt) {
  LinkState::Options options = Defaults();
  options.rebuild = false;
  LinkState failed(options);
  BringUp(failed);
  FailAndAbort(failed);
  EXPECT_EQ(failed.Next(now_), Step::kStop);
  LinkState idle(options);
  BringUp(idle);
  now_ += 301 * kSecond;
  EXPECT_EQ(idle.Next(now_), Step::kAbort);
  idle.Aborted(now_);
  EXPECT_EQ(idle.Next(now_), Step::kStop);
}

// Any order of events: an abort is asked for exactly while there is something to abort, and Close
// always gets there.
TEST_F(LinkStateTest, NoOrderOfEventsLeavesACommunicatorBehind) {
  for (uint32_t seed = 0; seed < 500; ++seed) {
    SCOPED_TRACE("seed=" + std::to_string(seed));
    std::mt19937 random(seed);
    LinkState link(Defaults());
    bool communicator = false;
    for (int i = 0; i < 200; ++i) {
      switch (random() % 6) {
        case 0:
          link.Want();
          break;
        case 1:
          link.Connected();
          break;
        case 2:
          link.Warmed(now_);
          break;
        case 3:
          link.Failed(now_);
          break;
        case 4:
          now_ += absl::Milliseconds(random() % 400'000);
          break;
        case 5:
          break;
      }
      const Step step = link.Next(now_);
      ASSERT_NE(step, Step::kStop);
      if (step == Step::kConnect) {
        ASSERT_FALSE(communicator);
        communicator = true;
      }
      ASSERT_EQ(step == Step::kPoll || step == Step::kServe || step == Step::kAbort ||
                    step == Step::kConnect,
                communicator);
      if (step == Step::kAbort) {
        link.Aborted(now_);
        communicator = false;
      }
    }
    link.Close();
    if (link.Next(now_) == Step::kAbort) {
      ASSERT_TRUE(communicator);
      link.Aborted(now_);
    }
    ASSERT_EQ(link.Next(now_), Step::kStop);
  }
}

}  // namespace
}  // namespace reprise::lanes
