#include "cluster/lanes/nccl/nccl_library.h"

#include <string>

#include "cluster/lanes/lane_status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/types/refusal.h"
#include "tests/support/fake_nccl/fake_device.h"

namespace reprise::lanes {
namespace {

using ::testing::HasSubstr;

TEST(NcclLibraryTest, ALibraryThatIsNotThereIsARefusalThatSaysWhatToDo) {
  const auto nccl = NcclLibrary::Load("/nowhere/libnccl.so.2");
  EXPECT_EQ(nccl.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(RefusalReason(nccl.status()), "NCCL_ABSENT");
  EXPECT_THAT(std::string(nccl.status().message()), HasSubstr("install libnccl2"));
}

TEST(NcclLibraryTest, ALibraryThatIsNotNcclIsNamedWithWhatItLacks) {
  const auto nccl = NcclLibrary::Load("libm.so.6");
  EXPECT_EQ(RefusalReason(nccl.status()), "NCCL_ABSENT");
  EXPECT_THAT(std::string(nccl.status().message()), HasSubstr("libm.so.6 has no ncclGetVersion"));
}

TEST(NcclLibraryTest, TheFakeHasAllThatTheLaneNeeds) {
  const auto nccl = reprise::testing::FakeNccl();
  EXPECT_EQ(nccl->VersionText(), "2.28.9");
  EXPECT_TRUE(nccl->ToStatus(ncclInProgress, "x").ok());
  EXPECT_TRUE(IsLaneDown(nccl->ToStatus(ncclRemoteError, "ncclSend")));
}

// The real one, where it is installed: the way into a communicator works without a GPU up to where
// one is needed.
TEST(NcclLibraryTest, WithoutAGpuTheRealOneLoadsAndFailsCleanly) {
  const auto nccl = NcclLibrary::Load();
  if (!nccl.ok()) GTEST_SKIP() << "SKIPPED: " << nccl.status().message();
  ncclUniqueId id;
  EXPECT_EQ((*nccl)->GetUniqueId(&id), ncclSuccess);
  if (OpenGpu(0).ok()) GTEST_SKIP() << "SKIPPED: this machine has a GPU";
  ncclComm_t comm = nullptr;
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  EXPECT_TRUE(
      IsLaneDown((*nccl)->ToStatus((*nccl)->CommInitRankConfig(&comm, 2, id, 0, &config), "init")));
}

}  // namespace
}  // namespace reprise::lanes
