// Whose links there are, how many, and when they end.
#include "absl/synchronization/notification.h"
#include "proto/types/refusal.h"
#include "tests/fault/nccl/nccl_fault.h"

namespace reprise::testing {
namespace {

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

// Not by NCCL's own words: with `silent` the peer's end of the communicator says nothing.
TEST_F(NcclFault, AnIdleLinkThatItsCallerClosesIsHungUpAtTheShard) {
  SetNcclFaults("silent=1");
  NcclRig::Options options;
  options.state.idle_max = absl::Seconds(2);
  Start(options);
  ASSERT_TRUE(rig_->AwaitUp());
  const auto deadline = lanes::MonotonicDeadline::After(absl::Seconds(30));
  while (rig_->nccl().link_state() == lanes::NcclLinkState::kUp && !deadline.over()) {
    std::this_thread::yield();
  }
  const absl::Time closed = MonotonicClock().Now();
  while (rig_->nccl_host().links() > 0 && !deadline.over()) std::this_thread::yield();
  EXPECT_EQ(rig_->nccl_host().links(), 0u);
  // The shard itself would wait for another two seconds.
  EXPECT_LT(MonotonicClock().Now() - closed, absl::Milliseconds(1500));
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

TEST_F(NcclFault, LinksAreBounded) {
  NcclRig::Options options;
  options.state.connect_timeout = absl::Minutes(1);
  Start(options);
  ncclUniqueId id{};
  lanes::NcclHost& host = rig_->nccl_host();
  uint64_t next = 1;
  const uint64_t attachments = limits::kNcclLinksMax / limits::kNcclLinksPerAttachmentMax;
  for (uint64_t a = 0; a < attachments; ++a) {
    const AttachmentId attachment(NcclRig::kAttachment.value + a);
    for (size_t i = 0; i < limits::kNcclLinksPerAttachmentMax; ++i) {
      ASSERT_TRUE(host.Connect(attachment, {lanes::NcclLinkId(next++), id}).ok());
    }
    // One that asks for more than its share leaves the rest to others.
    const absl::Status refused = host.Connect(attachment, {lanes::NcclLinkId(next++), id});
    EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  }
  const absl::Status refused = host.Connect(AttachmentId(999), {lanes::NcclLinkId(1000), id});
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_EQ(RefusalReason(refused), "NCCL_LINKS");
  EXPECT_TRUE(Read(1).ok());
  for (uint64_t a = 0; a < attachments; ++a) {
    host.EndAttachment(AttachmentId(NcclRig::kAttachment.value + a));
  }
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

// ---- Ends

TEST_F(NcclFault, ALinkThatEndsWhileItConnectsIsNotWaitedFor) {
  // A shard that does not answer NcclConnect.
  const auto asked = std::make_shared<absl::Notification>();
  const auto interrupted = std::make_shared<absl::Notification>();
  NcclRig::Options options;
  options.state.connect_timeout = absl::Seconds(60);
  options.stop_grace = absl::Seconds(60);
  options.hooks.connect = [=](lanes::MonotonicDeadline deadline) {
    asked->Notify();
    interrupted->WaitForNotificationWithTimeout(deadline.left());
    return absl::CancelledError("interrupted");
  };
  options.hooks.interrupt = [=] { interrupted->Notify(); };
  Start(options);
  rig_->nccl().Prepare();
  asked->WaitForNotification();
  const absl::Time started = MonotonicClock().Now();
  rig_.reset();
  ExpectInTime(started, absl::ZeroDuration());
}

TEST_F(NcclFault, AnAbortThatOutlastsTheGraceIsLeftBehindWithWhatItMayTouch) {
  SetNcclFaults("rank=0,group=hang,after=1,abort_ms=3000");
  NcclRig::Options options;
  options.stop_grace = absl::Milliseconds(100);
  Start(options);
  ASSERT_TRUE(rig_->AwaitUp());
  EXPECT_TRUE(Read(1, absl::Milliseconds(300)).ok());
  const absl::Time started = MonotonicClock().Now();
  rig_.reset();
  EXPECT_LT(MonotonicClock().Now() - started, absl::Seconds(2));
  EXPECT_EQ(LiveCommunicators(), 1);
  ExpectNothingRuns();
}

TEST_F(NcclFault, LinksThatEndTogetherAreWaitedForTogether) {
  SetNcclFaults("abort_ms=5000");
  NcclRig::Options options;
  options.state.connect_timeout = absl::Minutes(1);
  options.stop_grace = absl::Milliseconds(500);
  Start(options);
  for (uint64_t i = 1; i <= 8; ++i) {
    ASSERT_TRUE(rig_->nccl_host().Connect(AttachmentId(100 + i), {lanes::NcclLinkId(i), {}}).ok());
  }
  const absl::Time started = MonotonicClock().Now();
  rig_.reset();
  EXPECT_LT(MonotonicClock().Now() - started, absl::Milliseconds(2500));
  ExpectNothingRuns();
}

}  // namespace
}  // namespace reprise::testing
