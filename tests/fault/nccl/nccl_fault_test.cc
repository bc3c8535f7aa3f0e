// Every way in which NCCL or the process at its other end can fail: the caller gets the right bytes
// by another lane, or a miss, by its deadline; and nothing is left behind.
#include <dirent.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cluster/lanes/in_process/in_process_lane.h"
#include "cluster/lanes/lane_status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_nccl/nccl_rig.h"

namespace reprise::testing {
namespace {

constexpr uint64_t kBlockBytes = 200'000;
constexpr uint32_t kBlocks = 7;

absl::Time In(absl::Duration time) {
  return absl::Now() + time;
}

size_t Threads() {
  size_t threads = 0;
  DIR* tasks = ::opendir("/proc/self/task");
  while (const dirent* entry = ::readdir(tasks)) threads += entry->d_name[0] != '.';
  ::closedir(tasks);
  return threads;
}

// A worker's sink: bytes that are wrong are refused, as its checksum would.
class VerifyingSink final : public lanes::BlockSink {
 public:
  explicit VerifyingSink(uint64_t seed) : seed_(seed) {}
  std::span<uint8_t> Buffer(uint32_t) override {
    buffer_.resize(kBlockBytes);
    return buffer_;
  }
  absl::Status Complete(uint32_t i) override { return Deliver(i, buffer_); }
  absl::Status Deliver(uint32_t i, std::span<const uint8_t> bytes) override {
    const std::vector<uint8_t> expected = PatternBlock(seed_, i, kBlockBytes);
    if (!std::equal(bytes.begin(), bytes.end(), expected.begin(), expected.end())) {
      return absl::DataLossError("wrong bytes");
    }
    EXPECT_EQ(i, completed_++);
    return absl::OkStatus();
  }
  uint32_t completed() const { return completed_; }

 private:
  const uint64_t seed_;
  uint32_t completed_ = 0;
  std::vector<uint8_t> buffer_;
};

class NcclFault : public ::testing::Test {
 protected:
  void SetUp() override {
    SetNcclFaults("");
    // A sanitizer starts a thread of its own with the first one.
    std::thread([] {}).join();
    threads_before_ = Threads();
  }

  void Start(NcclRig::Options options = NcclRig::Options()) {
    rig_ = std::make_unique<NcclRig>(options);
  }

  absl::Status Read(uint64_t seed, absl::Duration time = absl::Seconds(20)) {
    const LeaseId lease =
        rig_->host().Lease({.seed = seed, .blocks = kBlocks, .block_bytes = kBlockBytes});
    VerifyingSink sink(seed);
    const absl::Status status = rig_->lane().Read({lease, 0, kBlocks, kBlockBytes}, sink, In(time));
    EXPECT_EQ(status.ok(), sink.completed() == kBlocks);
    rig_->host().EndLease(lease);
    return status;
  }

  // Writes, and reads back beside the lane under test.
  absl::Status Write(uint64_t seed, bool* right, absl::Duration time = absl::Seconds(20)) {
    const ReservationId reservation = rig_->host().Reserve(kBlocks, kBlockBytes);
    PatternSource source(seed, Iota(kBlocks), kBlockBytes);
    const absl::Status status =
        rig_->lane().Write({reservation, Iota(kBlocks), kBlockBytes}, source, In(time));
    lanes::InProcessLane beside(&rig_->host(), NcclRig::kAttachment);
    CheckingSink sink({.seed = seed, .blocks = kBlocks, .block_bytes = kBlockBytes});
    const LeaseId written = rig_->host().LeaseWritten(reservation);
    EXPECT_TRUE(beside.Read({written, 0, kBlocks, kBlockBytes}, sink, In(absl::Seconds(20))).ok());
    *right = sink.all_equal();
    return status;
  }

  // Everything that NCCL held is given back, and the process has no thread more than before.
  void ExpectNothingLeft() {
    EXPECT_TRUE(rig_->host().AwaitNoPins(absl::Seconds(30)));
    rig_.reset();
    EXPECT_EQ(LiveCommunicators(), 0);
    // The kernel shows a thread a moment longer than it takes to join it, before and after.
    const auto deadline = lanes::MonotonicDeadline::After(absl::Seconds(30));
    while (Threads() > threads_before_ && !deadline.over()) std::this_thread::yield();
    EXPECT_LE(Threads(), threads_before_);
  }

  // Once the faults are over the link comes back by itself and carries blocks again.
  void ExpectRecovery() {
    SetNcclFaults("");
    rig_->nccl().Prepare();
    ASSERT_TRUE(rig_->AwaitUp());
    // A communicator made while the faults were on may still fail once.
    const auto deadline = lanes::MonotonicDeadline::After(absl::Seconds(30));
    uint64_t before = 0;
    do {
      before = rig_->lane().BlocksServed(LaneKind::kNccl);
      ASSERT_TRUE(rig_->AwaitUp());
      const absl::Status status = Read(99, absl::Seconds(1));
      ASSERT_TRUE(status.ok() || absl::IsDataLoss(status)) << status;
    } while (rig_->lane().BlocksServed(LaneKind::kNccl) < before + kBlocks && !deadline.over());
    EXPECT_EQ(rig_->lane().BlocksServed(LaneKind::kNccl), before + kBlocks);
  }

  std::unique_ptr<NcclRig> rig_;
  size_t threads_before_ = 0;
};

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

TEST_F(NcclFault, AJobLargerThanTheLandingMemoryGoesInSeveralGroups) {
  NcclRig::Options options;
  options.landing_bytes = 3 * kBlockBytes;
  Start(options);
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
  const absl::Status status =
      rig_->nccl().Read({lease, 0, kBlocks, kBlockBytes}, sink, In(absl::Milliseconds(150)));
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
  const absl::Status status =
      rig_->nccl().Read({lease, 0, kBlocks, kBlockBytes}, sink, In(absl::Milliseconds(100)));
  rig_->host().Unstall();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  ExpectRecovery();
  ExpectNothingLeft();
}

TEST_F(NcclFault, ALostAttachStreamEndsItsLinksAndNoOthers) {
  Start();
  ASSERT_TRUE(rig_->AwaitUp());
  rig_->nccl_host().EndAttachment(AttachmentId(999));
  EXPECT_TRUE(Read(1).ok());
  EXPECT_EQ(rig_->lane().BlocksServed(LaneKind::kNccl), kBlocks);
  rig_->nccl_host().EndAttachment(NcclRig::kAttachment);
  EXPECT_TRUE(Read(2, absl::Seconds(4)).ok());
  EXPECT_EQ(rig_->lane().BlocksServed(LaneKind::kView), kBlocks);
  ExpectNothingLeft();
}

TEST_F(NcclFault, ALinkThatNobodyUsesIsClosedAtBothEndsAndMadeAgain) {
  NcclRig::Options options;
  options.state.idle_max = absl::Milliseconds(50);
  Start(options);
  ASSERT_TRUE(rig_->AwaitUp());
  const auto deadline = lanes::MonotonicDeadline::After(absl::Seconds(30));
  while (
      (rig_->nccl().link_state() != lanes::NcclLinkState::kIdle || rig_->nccl_host().links() > 0) &&
      !deadline.over()) {
    std::this_thread::yield();
  }
  EXPECT_EQ(rig_->nccl().link_state(), lanes::NcclLinkState::kIdle);
  EXPECT_EQ(rig_->nccl_host().links(), 0u);
  EXPECT_TRUE(rig_->AwaitUp());
  ExpectNothingLeft();
}

TEST_F(NcclFault, ALaneWhoseLinkIsClosedHoldsNoDeviceMemory) {
  NcclRig::Options options;
  options.state.idle_max = absl::Milliseconds(50);
  Start(options);
  EXPECT_EQ(rig_->device().allocated_bytes(), 0u);
  const auto deadline = lanes::MonotonicDeadline::After(absl::Seconds(30));
  // A busy machine may come to read only when the link is closed again.
  while (rig_->lane().BlocksServed(LaneKind::kNccl) == 0 && !deadline.over()) {
    ASSERT_TRUE(rig_->AwaitUp());
    EXPECT_TRUE(Read(1).ok());
  }
  EXPECT_GT(rig_->lane().BlocksServed(LaneKind::kNccl), 0u);
  while (rig_->device().allocated_bytes() > 0 && !deadline.over()) std::this_thread::yield();
  EXPECT_EQ(rig_->device().allocated_bytes(), 0u);
  ExpectNothingLeft();
}

TEST_F(NcclFault, LinksOfAProcessAreCappedAndALinkThatClosesMakesRoom) {
  NcclRig::Options options;
  options.cap = lanes::LinkCap::Create(1);
  std::shared_ptr<const void> another = options.cap->Take();
  Start(options);
  EXPECT_EQ(options.cap->Take(), nullptr);
  EXPECT_FALSE(rig_->AwaitUp(absl::Milliseconds(200)));
  EXPECT_TRUE(Read(1).ok());
  EXPECT_EQ(rig_->lane().BlocksServed(LaneKind::kView), kBlocks);
  another.reset();
  EXPECT_TRUE(rig_->AwaitUp());
  EXPECT_EQ(options.cap->links(), 1u);
  ExpectNothingLeft();
  EXPECT_EQ(options.cap->links(), 0u);
}

// A source whose blocks lie pinned in device memory: whoever asks to fill fails.
class PinnedSource final : public lanes::BlockSource {
 public:
  explicit PinnedSource(uint64_t seed) : alive_(std::make_shared<int>(0)) {
    for (uint32_t i = 0; i < kBlocks; ++i) blocks_.push_back(PatternBlock(seed, i, kBlockBytes));
  }
  absl::StatusOr<std::span<const uint8_t>> Bytes(uint32_t i) override {
    return std::span<const uint8_t>(blocks_[i]);
  }
  absl::Status Fill(uint32_t i, std::span<uint8_t> slot) override {
    ++filled;
    std::memcpy(slot.data(), blocks_[i].data(), slot.size());
    return absl::OkStatus();
  }
  std::vector<lanes::PinnedBytes> Pinned(uint32_t first, uint32_t blocks) override {
    std::vector<lanes::PinnedBytes> pinned;
    for (uint32_t i = first; i < std::min(first + blocks, first + 3) && i < kBlocks; ++i) {
      pinned.push_back({blocks_[i], alive_,
                        i == other_memory ? lanes::MemoryKind::kDevice : lanes::MemoryKind::kHost});
    }
    return pinned;
  }
  long pins() const { return alive_.use_count() - 1; }
  int filled = 0;
  uint32_t other_memory = kBlocks;

 private:
  std::vector<std::vector<uint8_t>> blocks_;
  std::shared_ptr<const void> alive_;
};

TEST_F(NcclFault, PinnedBlocksAreSentFromWhereTheyLie) {
  Start();
  ASSERT_TRUE(rig_->AwaitUp());
  const uint64_t before = rig_->device().allocated_bytes();
  PinnedSource source(5);
  const ReservationId reservation = rig_->host().Reserve(kBlocks, kBlockBytes);
  const absl::Status status =
      rig_->nccl().Write({reservation, Iota(kBlocks), kBlockBytes}, source, In(absl::Seconds(20)));
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(source.filled, 0);
  EXPECT_EQ(source.pins(), 0);
  // No landing memory was needed.
  EXPECT_EQ(rig_->device().allocated_bytes(), before);
  lanes::InProcessLane beside(&rig_->host(), NcclRig::kAttachment);
  VerifyingSink sink(5);
  EXPECT_TRUE(beside
                  .Read({rig_->host().LeaseWritten(reservation), 0, kBlocks, kBlockBytes}, sink,
                        In(absl::Seconds(20)))
                  .ok());
  EXPECT_EQ(rig_->nccl_host().moved().blocks_received, kBlocks);
  EXPECT_EQ(rig_->nccl_host().moved().bytes_received, kBlocks * kBlockBytes);
  ExpectNothingLeft();
}

TEST_F(NcclFault, PinnedBlocksInOtherMemoryGoByAnotherLaneAndTheLinkStays) {
  Start();
  ASSERT_TRUE(rig_->AwaitUp());
  PinnedSource source(6);
  source.other_memory = 4;
  const ReservationId reservation = rig_->host().Reserve(kBlocks, kBlockBytes);
  EXPECT_TRUE(rig_->lane()
                  .Write({reservation, Iota(kBlocks), kBlockBytes}, source, In(absl::Seconds(20)))
                  .ok());
  EXPECT_EQ(rig_->lane().BlocksServed(LaneKind::kView), kBlocks);
  EXPECT_EQ(rig_->nccl().link_state(), lanes::NcclLinkState::kUp);
  EXPECT_TRUE(Read(7).ok());
  EXPECT_EQ(rig_->lane().BlocksServed(LaneKind::kNccl), kBlocks);
  ExpectNothingLeft();
}

TEST_F(NcclFault, PinsOfASendLiveUntilAnAbortThatHangsIsDone) {
  SetNcclFaults("rank=0,group=hang,after=1,abort_ms=1500");
  Start();
  ASSERT_TRUE(rig_->AwaitUp());
  PinnedSource source(8);
  const ReservationId reservation = rig_->host().Reserve(kBlocks, kBlockBytes);
  const absl::Status status = rig_->nccl().Write({reservation, Iota(kBlocks), kBlockBytes}, source,
                                                 In(absl::Milliseconds(150)));
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_GT(source.pins(), 0);
  SetNcclFaults("");
  const auto deadline = lanes::MonotonicDeadline::After(absl::Seconds(30));
  while (source.pins() > 0 && !deadline.over()) std::this_thread::yield();
  EXPECT_EQ(source.pins(), 0);
  ExpectNothingLeft();
}

TEST_F(NcclFault, AReadWithABlockOutsideDeviceMemoryGoesByAnotherLaneAndTheLinkStays) {
  Start();
  ASSERT_TRUE(rig_->AwaitUp());
  rig_->nccl_view().elsewhere = 5;
  EXPECT_TRUE(Read(3).ok());
  EXPECT_EQ(rig_->lane().BlocksServed(LaneKind::kView), kBlocks);
  EXPECT_EQ(rig_->lane().BlocksServed(LaneKind::kNccl), 0u);
  EXPECT_EQ(rig_->nccl().link_state(), lanes::NcclLinkState::kUp);
  rig_->nccl_view().elsewhere = kBlocks;
  EXPECT_TRUE(Read(4).ok());
  EXPECT_EQ(rig_->lane().BlocksServed(LaneKind::kNccl), kBlocks);
  EXPECT_EQ(rig_->nccl_host().moved().blocks_sent, kBlocks);
  ExpectNothingLeft();
}

TEST_F(NcclFault, LinksAreBounded) {
  NcclRig::Options options;
  options.state.connect_timeout = absl::Minutes(1);
  Start(options);
  ncclUniqueId id{};
  for (uint64_t i = 1; i <= limits::kNcclLinksMax; ++i) {
    ASSERT_TRUE(rig_->nccl_host().Connect(NcclRig::kAttachment, {lanes::NcclLinkId(i), id}).ok());
  }
  const absl::Status refused =
      rig_->nccl_host().Connect(NcclRig::kAttachment, {lanes::NcclLinkId(1000), id});
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_TRUE(Read(1).ok());
  rig_->nccl_host().EndAttachment(NcclRig::kAttachment);
  ExpectNothingLeft();
}

TEST_F(NcclFault, AGroupOutOfTurnBreaksTheLinkAndAnotherAttachmentSeesNone) {
  Start();
  ncclUniqueId id{};
  const lanes::NcclLinkId link(7);
  const auto soon = lanes::MonotonicDeadline::After(absl::Seconds(20));
  ASSERT_TRUE(rig_->nccl_host().Connect(NcclRig::kAttachment, {link, id}).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(rig_->nccl_host().Connect(NcclRig::kAttachment, {link, id})));
  const LeaseId lease = rig_->host().Lease({.blocks = 1, .block_bytes = kBlockBytes});
  const lanes::NcclOpenCall second{
      .link = link, .sequence = 2, .lease = lease, .count = 1, .block_bytes = kBlockBytes};
  EXPECT_TRUE(absl::IsNotFound(rig_->nccl_host().Open(AttachmentId(999), second, soon).status()));
  EXPECT_TRUE(
      absl::IsInvalidArgument(rig_->nccl_host().Open(NcclRig::kAttachment, second, soon).status()));
  EXPECT_TRUE(absl::IsNotFound(rig_->nccl_host().Finish(NcclRig::kAttachment, link, 1, soon)));
  const auto deadline = lanes::MonotonicDeadline::After(absl::Seconds(30));
  while (rig_->nccl_host().links() > 0 && !deadline.over()) std::this_thread::yield();
  EXPECT_EQ(rig_->nccl_host().links(), 0u);
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
