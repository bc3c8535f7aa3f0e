#include "cluster/membership/static_file_membership.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/unit/cluster/membership/membership_conformance.h"
#include "tests/unit/cluster/membership/membership_log.h"

namespace reprise::cluster {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(5);

class MembersFile {
 public:
  MembersFile() {
    std::string name = ::testing::TempDir() + "/members.XXXXXX";
    if (mkdtemp(name.data()) == nullptr) std::abort();
    folder_ = name;
  }
  ~MembersFile() { std::filesystem::remove_all(folder_); }
  std::string path() const { return folder_ + "/members.yaml"; }
  void Write(const std::string& text) const {
    const std::string fresh = path() + ".new";
    std::ofstream(fresh) << text;
    std::filesystem::rename(fresh, path());
  }
  void WriteMembers(const std::vector<Member>& members) const {
    std::string text = "shards:\n";
    for (const Member& m : members) {
      absl::StrAppend(&text, "  - {id: ", m.id.name, ", address: \"", m.address, "\"}\n");
    }
    Write(text);
  }

 private:
  std::string folder_;
};

class FileRig : public MembershipRig {
 public:
  FileRig() {
    file_.WriteMembers(MembersNamed({"shard-9"}));
    membership_ =
        StaticFileMembership::Create({.path = file_.path(), .poll_interval = kPoll}).value();
  }
  Membership& membership() override { return *membership_; }
  void Change(const std::vector<Member>& members) override { file_.WriteMembers(members); }

 private:
  MembersFile file_;
  std::unique_ptr<StaticFileMembership> membership_;
};

INSTANTIATE_TYPED_TEST_SUITE_P(StaticFile, MembershipConformance, FileRig);

TEST(StaticFileMembershipTest, AFileThatIsNotThereYetHasNoMembersUntilItComes) {
  MembersFile file;
  auto membership =
      StaticFileMembership::Create({.path = file.path(), .poll_interval = kPoll}).value();
  EXPECT_TRUE(membership->Members().empty());
  Recorder recorder;
  auto watch = membership->Watch(recorder.Call());
  file.Write("");
  file.WriteMembers(MembersNamed({"shard-0"}));
  EXPECT_TRUE(recorder.WaitFor(MembersNamed({"shard-0"})));
}

TEST(StaticFileMembershipTest, ABrokenFileAtTheStartIsRefusedWithItsPath) {
  MembersFile file;
  file.Write("shards: [{id: a, adress: \"h:1\"}]\n");
  const auto membership = StaticFileMembership::Create({.path = file.path()});
  EXPECT_EQ(membership.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(membership.status().message()), ::testing::HasSubstr(file.path()));
  EXPECT_THAT(std::string(membership.status().message()), ::testing::HasSubstr("\"address\""));
}

TEST(StaticFileMembershipTest, AFileThatTurnsBadKeepsTheLastGoodMembersAndSaysWhy) {
  MembersFile file;
  const auto good = MembersNamed({"shard-0", "shard-1"});
  file.WriteMembers(good);
  MembershipLog log;
  auto membership =
      StaticFileMembership::Create({.path = file.path(), .poll_interval = kPoll, .log = log.Sink()})
          .value();
  Recorder recorder;
  auto watch = membership->Watch(recorder.Call());
  file.Write("shards: [{id: \"shard-0\"");
  EXPECT_TRUE(log.WaitForLineWith("not YAML"));
  EXPECT_EQ(membership->Members(), good);
  file.Write("");
  EXPECT_TRUE(log.WaitForLineWith("it is empty"));
  EXPECT_EQ(membership->Members(), good);
  std::filesystem::remove(file.path());
  EXPECT_TRUE(log.WaitForLineWith("cannot open it"));
  EXPECT_EQ(membership->Members(), good);
  const auto next = MembersNamed({"shard-0"});
  file.WriteMembers(next);
  EXPECT_TRUE(recorder.WaitFor(next));
  EXPECT_TRUE(log.WaitForLineWith("good again"));
}

TEST(StaticFileMembershipTest, AnEmptyListIsAnAnswerAndNotAMistake) {
  MembersFile file;
  file.WriteMembers(MembersNamed({"shard-0"}));
  auto membership =
      StaticFileMembership::Create({.path = file.path(), .poll_interval = kPoll}).value();
  Recorder recorder;
  auto watch = membership->Watch(recorder.Call());
  file.Write("shards: []\n");
  EXPECT_TRUE(recorder.WaitFor({}));
}

}  // namespace
}  // namespace reprise::cluster
