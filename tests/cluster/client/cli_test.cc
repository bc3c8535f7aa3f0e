// The command line against a cluster that it started itself.
#include <map>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cluster/client/local_cluster.h"
#include "tests/support/command.h"

namespace reprise::client {
namespace {

using reprise::testing::Answer;
using reprise::testing::BinFolder;
using reprise::testing::Reprise;
using reprise::testing::Run;
using ::testing::HasSubstr;
using testing::LocalCluster;

constexpr absl::Duration kPatience = absl::Seconds(60);

// What `reprise doctor` finds, by name, with variables of the environment such as "A=b".
std::map<std::string, nlohmann::json> Doctor(const std::string& program,
                                             std::vector<std::string> environment) {
  environment.insert(environment.begin(), "/usr/bin/env");
  environment.insert(environment.end(), {BinFolder() + "/" + program, "doctor", "--dram", "1MiB"});
  std::map<std::string, nlohmann::json> findings;
  const Answer answer = Run(environment);
  EXPECT_EQ(answer.exit_code, 0);
  for (const auto& finding : answer.json["findings"]) {
    findings[finding["name"]] = finding;
  }
  return findings;
}

TEST(CliDoctorTest, WithoutAGpuItSaysWhyAndNamesTheNcclThatItLookedFor) {
  auto found = Doctor("reprise", {"CUDA_VISIBLE_DEVICES=", "REPRISE_NCCL_LIBRARY=/nowhere/nccl"});
  EXPECT_EQ(found["GPUs"]["verdict"], "absent");
  EXPECT_FALSE(found["GPUs"]["found"].get<std::string>().empty());
  EXPECT_FALSE(found.contains("CUDA IPC"));
  EXPECT_FALSE(found.contains("peer access"));
  EXPECT_EQ(found["NCCL"]["verdict"], "absent");
  EXPECT_THAT(found["NCCL"]["found"].get<std::string>(), HasSubstr("NCCL: "));
#ifdef REPRISE_FAKE_NCCL_LIBRARY
  EXPECT_THAT(found["NCCL"]["found"].get<std::string>(), HasSubstr("/nowhere/nccl"));
#endif
}

TEST(CliDoctorTest, OfGpusItSaysWhatTheyCanDoForEachOther) {
  auto found = Doctor("reprise-fake-gpu", {"REPRISE_FAKE_GPU=devices=3"});
  EXPECT_EQ(found["GPUs"]["verdict"], "ok");
  EXPECT_THAT(found["GPUs"]["found"].get<std::string>(), HasSubstr("; 2: "));
  EXPECT_EQ(found["CUDA IPC"]["verdict"], "ok");
  EXPECT_EQ(found["CUDA IPC"]["found"], "0: works; 1: works; 2: works");
  EXPECT_EQ(found["peer access"]["verdict"], "ok");
  EXPECT_EQ(found["peer access"]["found"], "between 0-1, 0-2, 1-2");

  found = Doctor("reprise-fake-gpu", {"REPRISE_FAKE_GPU=devices=2,peers=none,ipc=refuse"});
  EXPECT_EQ(found["CUDA IPC"]["verdict"], "absent");
  EXPECT_THAT(found["CUDA IPC"]["next"].get<std::string>(), HasSubstr("container"));
  EXPECT_EQ(found["peer access"]["verdict"], "absent");
  EXPECT_EQ(found["peer access"]["found"], "none between 0-1");
  EXPECT_FALSE(Doctor("reprise-fake-gpu", {}).contains("peer access")) << "there is one GPU";
}

#ifdef REPRISE_FAKE_NCCL_LIBRARY
TEST(CliDoctorTest, OfNcclItSaysTheVersionOfTheOneThatTheLaneWouldLoad) {
  auto found = Doctor("reprise", {"REPRISE_NCCL_LIBRARY=" REPRISE_FAKE_NCCL_LIBRARY});
  EXPECT_EQ(found["NCCL"]["verdict"], "ok");
  EXPECT_EQ(found["NCCL"]["found"], "version 2.28.9");
}
#endif

class CliTest : public ::testing::Test {
 protected:
  std::string Router() const { return "--router=" + cluster_.router(); }
  LocalCluster cluster_{2, "32MiB", 1};
};

TEST_F(CliTest, DoctorMakesARoundTripAndEveryListShowsIt) {
  const Answer doctor = Reprise({"doctor", Router(), "--dram", "1MiB"});
  EXPECT_EQ(doctor.exit_code, 0);
  EXPECT_EQ(doctor.json["ok"], true) << doctor.json.dump(1);

  const Answer described = Reprise({"describe", Router()});
  EXPECT_EQ(described.exit_code, 0);
  ASSERT_EQ(described.json["shards"].size(), 2u);
  EXPECT_EQ(described.json["router"]["address"], cluster_.router());
  uint64_t blocks = 0;
  for (const auto& shard : described.json["shards"]) {
    EXPECT_EQ(shard["state"], "alive");
    EXPECT_EQ(shard["tiers"][0]["tier"], "dram");
    blocks += shard["blocks"].get<uint64_t>();
  }
  EXPECT_EQ(blocks, 1u);

  EXPECT_EQ(Reprise({"get", "shards", Router()}).json["shards"].size(), 2u);
  const Answer specs = Reprise({"get", "specs", Router()});
  ASSERT_EQ(specs.json["specs"].size(), 1u);
  EXPECT_THAT(specs.json["specs"][0]["spec"].get<std::string>(),
              ::testing::HasSubstr("reprise-doctor"));
  EXPECT_EQ(Reprise({"get", "sessions", Router()}).json["sessions"][0]["session"],
            "reprise-doctor");
  const Answer stored = Reprise({"get", "blocks", Router()});
  ASSERT_EQ(stored.json["blocks"].size(), 1u);

  const std::string key = stored.json["blocks"][0]["key"];
  const Answer hit = Reprise({"explain", Router(), "--keys", key});
  EXPECT_EQ(hit.exit_code, 0);
  EXPECT_EQ(hit.json["run_blocks"], 1);
  const Answer miss =
      Reprise({"explain", Router(), "--tokens", "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]"});
  EXPECT_EQ(miss.json["run_blocks"], 0);
  EXPECT_EQ(miss.json["reason"], "tokens_differ") << miss.json.dump(1);
  EXPECT_FALSE(miss.json["sentence"].get<std::string>().empty());
}

TEST_F(CliTest, ExitCodesSayWhatWentWrong) {
  EXPECT_EQ(Reprise({"version"}).exit_code, 0);
  EXPECT_EQ(Reprise({"describe", "--ruter", "a:1"}).exit_code, 2);
  EXPECT_EQ(Reprise({"explain", Router()}).exit_code, 2);
  EXPECT_EQ(Reprise({"get", "blocks", Router(), "--session", "nobody"}).exit_code, 3);
  EXPECT_EQ(Reprise({"explain", Router(), "--tokens", "[1]"}).exit_code, 3);
  EXPECT_EQ(Reprise({"describe", "--router", "127.0.0.1:1", "--timeout", "1"}).exit_code, 4);
}

TEST_F(CliTest, AShardThatDiesStopsNeitherTheOthersNorUp) {
  LocalCluster::Signal(cluster_.shards()[0], SIGKILL);
  const absl::Time give_up = absl::Now() + kPatience;
  std::string state;
  while (state != "dead" && absl::Now() < give_up) {
    const Answer described = Reprise({"describe", Router()});
    ASSERT_EQ(described.exit_code, 0);
    state = described.json["shards"][0]["state"];
    EXPECT_EQ(described.json["shards"][1]["state"], "alive");
  }
  EXPECT_EQ(state, "dead");
  EXPECT_EQ(cluster_.up().Wait(absl::ZeroDuration()), std::nullopt);
}

TEST_F(CliTest, UpStopsEverythingAndLeavesNothing) {
  cluster_.up().Signal(SIGTERM);
  EXPECT_EQ(cluster_.up().Wait(kPatience), 0);
  for (const auto& shard : cluster_.shards()) EXPECT_NE(kill(shard.pid, 0), 0) << shard.id;
  EXPECT_NE(kill(cluster_.router_pid(), 0), 0);
}

}  // namespace
}  // namespace reprise::client
