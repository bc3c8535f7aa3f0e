// Which memory the NCCL lane sends from and receives into, and how long it holds it.
#include <cstring>

#include "tests/fault/nccl/nccl_fault.h"

namespace reprise::testing {
namespace {

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

TEST_F(NcclFault, MemoryThatComesAfterItsLinksEndIsNotKept) {
  NcclRig::Options options;
  options.state.idle_max = absl::Milliseconds(100);
  Start(options);
  ASSERT_TRUE(rig_->AwaitUp());
  bool late = false;
  rig_->device().allocating = [&](uint64_t bytes) {
    if (bytes != options.landing_bytes) return;
    while (rig_->nccl().link_state() != lanes::NcclLinkState::kIdle) std::this_thread::yield();
    late = true;
  };
  const auto deadline = lanes::MonotonicDeadline::After(absl::Seconds(30));
  while (!late && !deadline.over()) {
    ASSERT_TRUE(rig_->AwaitUp());
    EXPECT_TRUE(Read(1).ok());
  }
  EXPECT_TRUE(late);
  EXPECT_EQ(rig_->nccl().link_state(), lanes::NcclLinkState::kIdle);
  EXPECT_EQ(rig_->device().allocated_bytes(), 0u);
  ExpectNothingLeft();
}

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
  // The shard is done, and counts, a moment later.
  const auto deadline = lanes::MonotonicDeadline::After(absl::Seconds(30));
  while (rig_->nccl_host().moved().blocks_sent < kBlocks && !deadline.over()) {
    std::this_thread::yield();
  }
  EXPECT_EQ(rig_->nccl_host().moved().blocks_sent, kBlocks);
  ExpectNothingLeft();
}

}  // namespace
}  // namespace reprise::testing
