// Every way in which NCCL or the process at its other end can fail: the caller gets the right bytes
// by another lane, or a miss, by its deadline; and nothing is left behind.
#include "tests/fault/nccl/nccl_fault.h"

#include <atomic>

namespace reprise::testing {
namespace {

TEST_F(NcclFault, TheFirstReadDoesNotWaitForTheLinkAndLaterOnesUseIt) {
  Start();
  EXPECT_TRUE(Read(1).ok());
  EXPECT_EQ(rig_->lane().BlocksServed(LaneKind::kView), kBlocks);
  ASSERT_TRUE(rig_->AwaitUp());
  EXPECT_TRUE(Read(2).ok());
  bool right = false;
  EXPECT_TRUE(Write(3, &right).ok());
  EXPECT_TRUE(right);
  EXPECT_EQ(rig_->lane().BlocksServed(LaneKind::kNccl), 2 * kBlocks);
  ExpectNothingLeft();
}

// ---- One fault, at either rank, before, while and after the link is warmed

struct Fault {
  std::string name;
  std::string text;
};

class NcclOneFault : public NcclFault, public ::testing::WithParamInterface<Fault> {};

TEST_P(NcclOneFault, EndsInRightBytesByAnotherLaneAndIsHealed) {
  SetNcclFaults(GetParam().text);
  NcclRig::Options options;
  options.state.connect_timeout = absl::Milliseconds(200);
  Start(options);
  const bool comes_up = GetParam().text.find("after=") != std::string::npos;
  for (uint64_t round = 0; round < 2; ++round) {
    ASSERT_TRUE(!comes_up || rig_->AwaitUp());
    const absl::Status read = Read(round, absl::Seconds(1));
    EXPECT_TRUE(read.ok()) << GetParam().text << ": " << read;
    ASSERT_TRUE(!comes_up || rig_->AwaitUp());
    bool right = false;
    const absl::Status written = Write(round + 50, &right, absl::Seconds(1));
    EXPECT_TRUE(written.ok()) << GetParam().text << ": " << written;
    EXPECT_TRUE(right);
  }
  EXPECT_GT(rig_->lane().BlocksServed(LaneKind::kView), 0u);
  ExpectRecovery();
  ExpectNothingLeft();
}

std::vector<Fault> EveryFault() {
  std::vector<Fault> faults;
  for (const char* rank : {"0", "1"}) {
    const std::string at = std::string("rank=") + rank;
    const std::string name = std::string("AtRank") + rank;
    faults.push_back({"InitFails" + name, at + ",init=error"});
    faults.push_back({"InitNeverEnds" + name, at + ",init=hang"});
    for (const char* group : {"hang", "enqueue", "error", "vanish"}) {
      faults.push_back({std::string("Warming_") + group + name, at + ",group=" + group});
      faults.push_back({std::string("Group_") + group + name, at + ",after=1,group=" + group});
    }
    faults.push_back({"PeerVanishesSilently" + name, at + ",after=1,silent=1,group=vanish"});
    faults.push_back({"AbortIsSlow" + name, at + ",after=1,group=hang,abort_ms=100"});
  }
  return faults;
}

INSTANTIATE_TEST_SUITE_P(Faults, NcclOneFault, ::testing::ValuesIn(EveryFault()),
                         [](const ::testing::TestParamInfo<Fault>& info) {
                           return info.param.name;
                         });

// ---- The finer claims

TEST_F(NcclFault, WrongBytesAreAMissAndNeverUsed) {
  SetNcclFaults("rank=0,flip=1,after=1");
  Start();
  ASSERT_TRUE(rig_->AwaitUp());
  const absl::Status status = Read(5);
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  ExpectNothingLeft();
}

TEST_F(NcclFault, ACallReturnsByItsDeadlineWhileAnAbortHangs) {
  SetNcclFaults("rank=0,group=hang,after=1,abort_ms=1500");
  Start();
  ASSERT_TRUE(rig_->AwaitUp());
  const LeaseId lease =
      rig_->host().Lease({.seed = 1, .blocks = kBlocks, .block_bytes = kBlockBytes});
  CheckingSink sink({.seed = 1, .blocks = kBlocks, .block_bytes = kBlockBytes});
  const absl::Time started = MonotonicClock().Now();
  const absl::Status status =
      rig_->nccl().Read({lease, 0, kBlocks, kBlockBytes}, sink, In(absl::Milliseconds(150)));
  ExpectInTime(started, absl::Milliseconds(150));
  // The abort is still under way, and from here on the caller's memory is gone.
  EXPECT_EQ(LiveCommunicators() > 0, true);
  sink.Revoke();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_EQ(rig_->nccl().link_state(), lanes::NcclLinkState::kFailed);
  const absl::Status next = Read(2);
  EXPECT_TRUE(next.ok()) << next;
  SetNcclFaults("");
  ExpectNothingLeft();
}

TEST_F(NcclFault, SlotsStayPinnedUntilAnAbortThatHangsIsDone) {
  SetNcclFaults("rank=1,group=hang,after=1,abort_ms=1500");
  Start();
  ASSERT_TRUE(rig_->AwaitUp());
  EXPECT_TRUE(Read(1, absl::Milliseconds(300)).ok());
  // Whoever had a slot of them now would be written over, or read from.
  EXPECT_EQ(rig_->host().PinsHeld() >= kBlocks, true);
  EXPECT_TRUE(rig_->host().AwaitNoPins(absl::Seconds(30)));
  SetNcclFaults("");
  ExpectNothingLeft();
}

TEST_F(NcclFault, AHostThatStallsCostsOneDeadlineAndTheLinkIsRebuilt) {
  Start();
  ASSERT_TRUE(rig_->AwaitUp());
  rig_->host().Stall();
  const LeaseId lease = rig_->host().Lease({.blocks = kBlocks, .block_bytes = kBlockBytes});
  CheckingSink sink({.blocks = kBlocks, .block_bytes = kBlockBytes});
  const absl::Time started = MonotonicClock().Now();
  const absl::Status status =
      rig_->nccl().Read({lease, 0, kBlocks, kBlockBytes}, sink, In(absl::Milliseconds(100)));
  ExpectInTime(started, absl::Milliseconds(100));
  rig_->host().Unstall();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  ExpectRecovery();
  ExpectNothingLeft();
}

TEST_F(NcclFault, AShardThatOpensNothingAndDoesNotSayWhyIsNotBelieved) {
  const auto mute = std::make_shared<std::atomic<bool>>(true);
  NcclRig::Options options;
  options.hooks.open = [mute](const lanes::NcclOpenCall&) {
    return *mute ? std::make_optional<absl::StatusOr<lanes::NcclOpened>>(lanes::NcclOpened{})
                 : std::nullopt;
  };
  Start(options);
  ASSERT_TRUE(rig_->AwaitUp());
  const absl::Status read = Read(1);
  EXPECT_TRUE(read.ok()) << read;
  ASSERT_TRUE(rig_->AwaitUp());
  bool right = false;
  const absl::Status written = Write(2, &right);
  EXPECT_TRUE(written.ok()) << written;
  EXPECT_TRUE(right);
  EXPECT_EQ(rig_->lane().BlocksServed(LaneKind::kView), 2 * kBlocks);
  *mute = false;
  ExpectRecovery();
  ExpectNothingLeft();
}

TEST_F(NcclFault, ACallThatIsStuckCostsTheOthersNeitherTheirDeadlineNorItsOwn) {
  SetNcclFaults("rank=1,group=hang,after=1");
  Start();
  ASSERT_TRUE(rig_->AwaitUp());
  std::thread stuck([&] { EXPECT_TRUE(Read(1).ok()); });
  while (rig_->host().PinsHeld() == 0) std::this_thread::yield();
  const absl::Time started = MonotonicClock().Now();
  std::vector<std::thread> callers;
  for (uint64_t t = 0; t < 4; ++t) {
    callers.emplace_back([&, t] { EXPECT_TRUE(Read(10 + t).ok()); });
  }
  for (std::thread& caller : callers) caller.join();
  // A half of their budget is ten seconds.
  EXPECT_LT(MonotonicClock().Now() - started, absl::Seconds(5));
  EXPECT_EQ(rig_->nccl().link_state(), lanes::NcclLinkState::kUp);
  rig_->nccl_host().EndAttachment(NcclRig::kAttachment);
  stuck.join();
  SetNcclFaults("");
  ExpectNothingLeft();
}

TEST_F(NcclFault, ParallelCallersSurviveALinkThatDiesAgainAndAgain) {
  SetNcclFaults("rank=1,group=error,after=4");
  Start();
  ASSERT_TRUE(rig_->AwaitUp());
  std::vector<std::thread> callers;
  std::atomic<int> wrong{0};
  for (uint64_t t = 0; t < 4; ++t) {
    callers.emplace_back([&, t] {
      for (uint64_t round = 0; round < 12; ++round) {
        bool right = true;
        const absl::Status status =
            (t + round) % 2 == 0 ? Read(t * 100 + round) : Write(t * 100 + round, &right);
        if (!status.ok() || !right) ++wrong;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(wrong, 0);
  ExpectRecovery();
  ExpectNothingLeft();
}

// ---- Whatever a seed draws

class NcclSeeds : public NcclFault, public ::testing::WithParamInterface<int> {};

TEST_P(NcclSeeds, RightBytesOrAMissByTheDeadline) {
  SCOPED_TRACE("seed=" + std::to_string(GetParam()));
  SetNcclFaults("seed=" + std::to_string(GetParam()));
  NcclRig::Options options;
  options.state.connect_timeout = absl::Milliseconds(100);
  Start(options);
  for (uint64_t round = 0; round < 3; ++round) {
    rig_->nccl().Prepare();
    static_cast<void>(rig_->AwaitUp(absl::Milliseconds(100)));
    const absl::Status read = Read(round, absl::Seconds(1));
    EXPECT_TRUE(read.ok() || absl::IsDataLoss(read)) << read;
  }
  ExpectRecovery();
  ExpectNothingLeft();
}

INSTANTIATE_TEST_SUITE_P(Seeds, NcclSeeds, ::testing::Range(1, 21));

}  // namespace
}  // namespace reprise::testing
