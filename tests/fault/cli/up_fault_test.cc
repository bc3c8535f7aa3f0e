// `reprise up` that dies without a chance to stop its servers leaves none of them behind.

#include <gtest/gtest.h>
#include <sys/prctl.h>

#include <nlohmann/json.hpp>

#include "tests/support/process.h"

namespace reprise::testing {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(60);

class UpFaultTest : public ::testing::Test {
 protected:
  // Orphans become children of the test, so that it can wait for their ends.
  UpFaultTest() { REPRISE_CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0); }

  void Start() {
    up_ = std::make_unique<Process>(std::vector<std::string>{
        BinFolder() + "/reprise", "up", "--shards", "2", "--dram", "64MiB", "-o", "json"});
    const std::optional<std::string> line = up_->ReadLine(kPatience);
    ASSERT_TRUE(line.has_value()) << "`reprise up` did not begin to serve";
    const auto facts = nlohmann::json::parse(*line);
    servers_.push_back(facts.at("router_pid"));
    for (const auto& shard : facts.at("shards")) servers_.push_back(shard.at("pid"));
    ASSERT_EQ(servers_.size(), 3u);
  }

  void KillUp() {
    up_->Kill();
    ASSERT_TRUE(up_->Wait(kPatience).has_value());
  }

  // Reaps an orphan; false when it is still there after kPatience.
  static bool Gone(pid_t pid) {
    const absl::Time deadline = absl::Now() + kPatience;
    while (waitpid(pid, nullptr, WNOHANG) == 0) {
      if (absl::Now() > deadline) return false;
      poll(nullptr, 0, 5);
    }
    return kill(pid, 0) == -1 && errno == ESRCH;
  }

  std::unique_ptr<Process> up_;
  std::vector<pid_t> servers_;
};

TEST_F(UpFaultTest, ServersDieWithAnUpThatIsKilled) {
  ASSERT_NO_FATAL_FAILURE(Start());
  KillUp();
  for (const pid_t pid : servers_) EXPECT_TRUE(Gone(pid)) << pid;
}

TEST_F(UpFaultTest, AServerThatHangsDiesToo) {
  ASSERT_NO_FATAL_FAILURE(Start());
  for (const pid_t pid : servers_) ASSERT_EQ(kill(pid, SIGSTOP), 0);
  KillUp();
  for (const pid_t pid : servers_) EXPECT_TRUE(Gone(pid)) << pid;
}

TEST_F(UpFaultTest, ServersThatAreStartingDieToo) {
  // Killed at some moment of its start: whatever runs by then is re-parented to the test.
  for (const absl::Duration moment :
       {absl::ZeroDuration(), absl::Milliseconds(20), absl::Milliseconds(100)}) {
    up_ = std::make_unique<Process>(std::vector<std::string>{
        BinFolder() + "/reprise", "up", "--shards", "2", "--dram", "64MiB", "-o", "json"});
    up_->ReadLine(moment);
    KillUp();
    const absl::Time deadline = absl::Now() + kPatience;
    pid_t orphan = 0;
    while ((orphan = waitpid(-1, nullptr, WNOHANG)) != -1 && absl::Now() < deadline) {
      if (orphan == 0) poll(nullptr, 0, 5);
    }
    EXPECT_EQ(orphan, -1) << "an orphan is still there";
  }
}

}  // namespace
}  // namespace reprise::testing
