// What happens to a call, and to the link, when a shard has too much to do or a caller asks for too
// much.
#include <atomic>

#include "proto/types/refusal.h"
#include "tests/fault/nccl/nccl_fault.h"

namespace reprise::testing {
namespace {

absl::Status CallsRefused() {
  return Refusal(absl::StatusCode::kResourceExhausted, lanes::kNcclCallsRefusal, "too many calls");
}

class NcclOverload : public NcclFault {
 protected:
  // Reads and writes by another lane while `trouble`, and by the same link as before after it.
  void ExpectOneCallElsewhere(std::atomic<bool>& trouble) {
    ASSERT_TRUE(rig_->AwaitUp());
    EXPECT_TRUE(Read(1).ok());
    const uint64_t by_nccl = rig_->lane().BlocksServed(LaneKind::kNccl);
    EXPECT_EQ(by_nccl, kBlocks);
    trouble = true;
    bool right = false;
    const absl::Status written = Write(2, &right);
    EXPECT_TRUE(written.ok()) << written;
    EXPECT_TRUE(right);
    EXPECT_EQ(rig_->lane().BlocksServed(LaneKind::kView), kBlocks);
    EXPECT_EQ(rig_->nccl().link_state(), lanes::NcclLinkState::kUp);
    trouble = false;
    EXPECT_TRUE(Read(3).ok());
    EXPECT_TRUE(Write(4, &right).ok());
    EXPECT_TRUE(right);
    EXPECT_EQ(rig_->lane().BlocksServed(LaneKind::kNccl), by_nccl + 2 * kBlocks);
    EXPECT_EQ(rig_->nccl_host().links(), 1u);
    ExpectNothingLeft();
  }
  std::atomic<bool> trouble_{false};
};

TEST_F(NcclOverload, AnOpenThatIsRefusedUnseenGoesByAnotherLaneAndTheLinkStays) {
  NcclRig::Options options;
  options.hooks.open = [this](const lanes::NcclOpenCall&) {
    return trouble_ ? std::make_optional<absl::StatusOr<lanes::NcclOpened>>(CallsRefused())
                    : std::nullopt;
  };
  Start(options);
  ExpectOneCallElsewhere(trouble_);
}

TEST_F(NcclOverload, AFinishThatIsRefusedGoesByAnotherLaneAndTheLinkStays) {
  NcclRig::Options options;
  options.hooks.finish = [this] {
    return trouble_ ? std::make_optional(CallsRefused()) : std::nullopt;
  };
  Start(options);
  ExpectOneCallElsewhere(trouble_);
}

TEST_F(NcclOverload, AWriteWhoseLinkEndsBeforeItsFinishGoesByAnotherLane) {
  NcclRig::Options options;
  options.hooks.finish = [] {
    return std::make_optional(
        Refusal(absl::StatusCode::kNotFound, lanes::kNcclLinkUnknown, "no such link"));
  };
  Start(options);
  ASSERT_TRUE(rig_->AwaitUp());
  bool right = false;
  const absl::Status written = Write(2, &right);
  EXPECT_TRUE(written.ok()) << written;
  EXPECT_TRUE(right);
  EXPECT_EQ(rig_->lane().BlocksServed(LaneKind::kView), kBlocks);
  ExpectNothingLeft();
}

// A caller that asks for groups and takes part in none.
TEST_F(NcclOverload, GroupsThatNobodyReceivesAreRefusedBeyondTheQueuesEnd) {
  Start();
  lanes::NcclHost& host = rig_->nccl_host();
  const std::shared_ptr<const lanes::NcclLibrary> nccl = FakeNccl();
  ncclUniqueId id{};
  ASSERT_TRUE(nccl->ToStatus(nccl->GetUniqueId(&id), "ncclGetUniqueId").ok());
  lanes::NcclLink caller({.nccl = nccl,
                          .device = std::make_shared<FakeDevice>(),
                          .rank = 0,
                          .rendezvous = [id](lanes::MonotonicDeadline) { return id; }});
  caller.Want();
  const lanes::NcclLinkId link(7);
  ASSERT_TRUE(host.Connect(NcclRig::kAttachment, {link, id}).ok());
  const auto patience = lanes::MonotonicDeadline::After(absl::Seconds(30));
  while (caller.state() != lanes::NcclLinkState::kUp && !patience.over()) std::this_thread::yield();
  const LeaseId lease = rig_->host().Lease({.blocks = kBlocks, .block_bytes = kBlockBytes});
  uint32_t opened = 0;
  absl::Status refused;
  for (uint64_t sequence = 1; sequence <= limits::kNcclLinkQueueMax + 3; ++sequence) {
    const auto said = host.Open(NcclRig::kAttachment,
                                {.link = link,
                                 .sequence = sequence,
                                 .lease = lease,
                                 .count = kBlocks,
                                 .block_bytes = kBlockBytes},
                                patience);
    ASSERT_TRUE(said.ok()) << said.status();
    opened += said->count > 0 ? 1 : 0;
    if (said->count == 0) refused = said->status;
  }
  EXPECT_LE(opened, limits::kNcclLinkQueueMax);
  EXPECT_EQ(RefusalReason(refused), "NCCL_QUEUE") << refused;
  EXPECT_LE(rig_->host().PinsHeld(), uint64_t{limits::kNcclLinkQueueMax} * kBlocks);
  host.Hangup(NcclRig::kAttachment, link);
  caller.Close();
  EXPECT_TRUE(caller.WaitClosed(absl::Seconds(30)));
  ExpectNothingLeft();
}

}  // namespace
}  // namespace reprise::testing
