#include "cluster/peer/replication_queue.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/support/block_content.h"

namespace reprise::cluster {
namespace {

ReplicationJob Job(const std::string& session, size_t blocks, uint32_t first_new = 0) {
  return {.tenant = {"default"},
          .session_id = session,
          .keys = testing::ChainNamed(session, blocks),
          .first_new = first_new};
}

TEST(ReplicationQueueTest, ChainsOfALaneLeaveInTheOrderOfArrival) {
  ReplicationQueue queue(1, 1000);
  for (int i = 0; i < 5; ++i) queue.Push(Job(absl::StrCat("s", i), 3));
  for (int i = 0; i < 5; ++i) EXPECT_EQ(queue.Pop(0)->session_id, absl::StrCat("s", i));
  EXPECT_FALSE(queue.Pop(0).has_value());
  EXPECT_EQ(queue.blocks(), 0u);
}

TEST(ReplicationQueueTest, TheChainsOfASessionShareALane) {
  ReplicationQueue queue(4, 10'000);
  for (int i = 0; i < 40; ++i) queue.Push(Job(absl::StrCat("s", i), 3));
  std::vector<size_t> lane_of(40);
  for (size_t lane = 0; lane < 4; ++lane) {
    while (const auto job = queue.Pop(lane)) {
      lane_of[static_cast<size_t>(std::stoi(job->session_id.substr(1)))] = lane;
    }
  }
  for (int i = 0; i < 40; ++i) {
    queue.Push(Job(absl::StrCat("s", i), 7));
    EXPECT_TRUE(queue.Pop(lane_of[static_cast<size_t>(i)]).has_value());
  }
}

TEST(ReplicationQueueTest, AConversationThatGrewIsOneChain) {
  ReplicationQueue queue(1, 1000);
  queue.Push(Job("chat", 4));
  queue.Push(Job("chat", 9, /*first_new=*/4));
  EXPECT_EQ(queue.blocks(), 9u);
  const auto job = queue.Pop(0);
  EXPECT_EQ(job->keys.size(), 9u);
  EXPECT_EQ(job->first_new, 0u);
  EXPECT_FALSE(queue.Pop(0).has_value());
}

TEST(ReplicationQueueTest, AnotherBranchOrSpecIsAnotherChain) {
  ReplicationQueue queue(1, 1000);
  queue.Push(Job("chat", 4));
  ReplicationJob branch = Job("chat", 5);
  branch.keys[3] = testing::KeyNamed("another turn");
  queue.Push(branch);
  ReplicationJob spec = branch;
  spec.spec.model = "other";
  queue.Push(spec);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(queue.Pop(0).has_value()) << i;
}

TEST(ReplicationQueueTest, TheOldestOfAllLanesAreDroppedForTheNewest) {
  ReplicationQueue queue(3, 100);
  for (int i = 0; i < 30; ++i) queue.Push(Job(absl::StrCat("s", i), 10));
  EXPECT_LE(queue.blocks(), 100u);
  int left = 0;
  for (size_t lane = 0; lane < 3; ++lane) {
    while (const auto job = queue.Pop(lane)) {
      ++left;
      EXPECT_GE(std::stoi(job->session_id.substr(1)), 20);
    }
  }
  EXPECT_EQ(left, 10);
}

TEST(ReplicationQueueTest, AChainLargerThanTheQueueWaitsAlone) {
  ReplicationQueue queue(2, 100);
  queue.Push(Job("small", 10));
  EXPECT_EQ(queue.Push(Job("large", 500)), 1u);
  EXPECT_EQ(queue.blocks(), 500u);
  EXPECT_EQ(queue.Push(Job("next", 10)), 1u);
  EXPECT_EQ(queue.blocks(), 10u);
}

}  // namespace
}  // namespace reprise::cluster
