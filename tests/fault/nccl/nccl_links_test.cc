// Whose links there are, how many, and when they end.
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

}  // namespace
}  // namespace reprise::testing
