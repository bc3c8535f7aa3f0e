#include "cluster/lanes/nccl/nccl_link.h"

#include <atomic>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"
#include "proto/types/refusal.h"
#include "tests/support/fake_nccl/fake_device.h"

namespace reprise::lanes {
namespace {

using testing::FakeDevice;

constexpr absl::Duration kPatience = absl::Seconds(30);

// The two ends of a link in one process.
class NcclLinkTest : public ::testing::Test {
 protected:
  NcclLinkTest() {
    testing::SetNcclFaults("");
    EXPECT_TRUE(nccl_->ToStatus(nccl_->GetUniqueId(&id_), "ncclGetUniqueId").ok());
  }
  ~NcclLinkTest() override {
    for (auto& end : ends_) end.reset();
    EXPECT_EQ(testing::LiveCommunicators(), 0);
  }
  NcclLink& Make(int rank, LinkState::Options state = LinkState::Options()) {
    state.connect_timeout = kPatience;
    ends_[rank] = std::make_unique<NcclLink>(
        NcclLink::Options{.nccl = nccl_,
                          .device = devices_[rank],
                          .rank = rank,
                          .rendezvous = [id = id_](MonotonicDeadline) { return id; },
                          .failed = [this, rank] { ++failures_[rank]; },
                          .state = state});
    ends_[rank]->Want();
    return *ends_[rank];
  }
  static bool Await(const NcclLink& link, NcclLinkState state) {
    const auto deadline = MonotonicDeadline::After(kPatience);
    while (link.state() != state && !deadline.over()) std::this_thread::yield();
    return link.state() == state;
  }
  // A group of one block from rank 0 to rank 1.
  NcclTicket Ticket(int rank) {
    NcclTicket ticket{.deadline = MonotonicDeadline::After(kPatience)};
    if (rank == 0) {
      ticket.group.sends = {std::span<const uint8_t>(sent_)};
    } else {
      ticket.group.receives = {std::span<uint8_t>(received_)};
    }
    return ticket;
  }

  const std::shared_ptr<const NcclLibrary> nccl_ = testing::FakeNccl();
  const std::shared_ptr<FakeDevice> devices_[2] = {std::make_shared<FakeDevice>(),
                                                   std::make_shared<FakeDevice>()};
  ncclUniqueId id_{};
  std::vector<uint8_t> sent_ = std::vector<uint8_t>(1000, 7);
  std::vector<uint8_t> received_ = std::vector<uint8_t>(1000);
  std::atomic<int> failures_[2] = {};
  std::unique_ptr<NcclLink> ends_[2];
};

TEST_F(NcclLinkTest, GroupsMoveBlocks) {
  NcclLink& caller = Make(0);
  NcclLink& shard = Make(1);
  ASSERT_TRUE(Await(caller, NcclLinkState::kUp) && Await(shard, NcclLinkState::kUp));
  const auto sent = caller.Submit(Ticket(0));
  const auto received = shard.Submit(Ticket(1));
  ASSERT_TRUE(sent.ok() && received.ok());
  EXPECT_TRUE(caller.Await(**sent, MonotonicDeadline::After(kPatience)).ok());
  EXPECT_TRUE(shard.Await(**received, MonotonicDeadline::After(kPatience)).ok());
  EXPECT_EQ(received_, sent_);
}

// The peer is done with warming as soon as this end's half has begun, and may ask for a group
// before this end's thread goes on.
TEST_F(NcclLinkTest, AGroupIsTakenFromTheMomentInWhichWarmingBegins) {
  absl::Status taken;
  NcclLink* shard = nullptr;
  absl::Notification made;
  devices_[1]->allocating = [&](uint64_t) {
    made.WaitForNotification();
    taken = shard->Submit(Ticket(1)).status();
  };
  shard = &Make(1);
  made.Notify();
  NcclLink& caller = Make(0);
  ASSERT_TRUE(Await(caller, NcclLinkState::kUp));
  const auto sent = caller.Submit(Ticket(0));
  ASSERT_TRUE(sent.ok());
  EXPECT_TRUE(caller.Await(**sent, MonotonicDeadline::After(kPatience)).ok());
  ASSERT_TRUE(Await(*shard, NcclLinkState::kUp));
  EXPECT_TRUE(taken.ok()) << taken;
}

TEST_F(NcclLinkTest, AQueueThatIsFullRefusesAndTheLinkStays) {
  NcclLink& caller = Make(0);
  NcclLink& shard = Make(1);
  ASSERT_TRUE(Await(caller, NcclLinkState::kUp) && Await(shard, NcclLinkState::kUp));
  std::vector<std::shared_ptr<NcclLink::Pending>> waiting;
  for (size_t i = 0; i < limits::kNcclLinkQueueMax; ++i) {
    const auto pending = shard.Submit(Ticket(1));
    ASSERT_TRUE(pending.ok()) << i << ": " << pending.status();
    waiting.push_back(*pending);
  }
  const absl::Status refused = shard.Submit(Ticket(1)).status();
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_EQ(RefusalReason(refused), "NCCL_QUEUE");
  for (const auto& pending : waiting) {
    const auto sent = caller.Submit(Ticket(0));
    ASSERT_TRUE(sent.ok()) << sent.status();
    EXPECT_TRUE(caller.Await(**sent, MonotonicDeadline::After(kPatience)).ok());
    EXPECT_TRUE(shard.Await(*pending, MonotonicDeadline::After(kPatience)).ok());
  }
  EXPECT_TRUE(shard.Submit(Ticket(1)).ok());
}

TEST_F(NcclLinkTest, AnIdleLinkHearsOfAPeerThatIsGone) {
  NcclLink& caller = Make(0);
  NcclLink& shard = Make(1, {.rebuild = false});
  ASSERT_TRUE(Await(caller, NcclLinkState::kUp) && Await(shard, NcclLinkState::kUp));
  caller.Close();
  EXPECT_TRUE(Await(shard, NcclLinkState::kClosed));
}

TEST_F(NcclLinkTest, AFailureIsToldOfAndAnEndIsNot) {
  for (const bool fails : {true, false}) {
    NcclLink& caller = Make(0, {.rebuild = false});
    NcclLink& shard = Make(1, {.rebuild = false});
    ASSERT_TRUE(Await(caller, NcclLinkState::kUp) && Await(shard, NcclLinkState::kUp));
    failures_[0] = 0;
    if (fails) {
      caller.Fail("the peer said so");
    } else {
      caller.Close();
    }
    ASSERT_TRUE(Await(caller, NcclLinkState::kClosed));
    EXPECT_EQ(failures_[0], fails ? 1 : 0);
    for (auto& end : ends_) end.reset();
    EXPECT_TRUE(nccl_->ToStatus(nccl_->GetUniqueId(&id_), "ncclGetUniqueId").ok());
  }
}

}  // namespace
}  // namespace reprise::lanes
