#include "cluster/lanes/lane_choice.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace reprise::lanes {
namespace {

constexpr LaneKind kS = LaneKind::kStream;
constexpr LaneKind kV = LaneKind::kView;
constexpr LaneKind kN = LaneKind::kNccl;
constexpr LaneKind kT = LaneKind::kTcp;
using Lanes = std::vector<LaneKind>;

constexpr MemoryKind kHost = MemoryKind::kHost;
constexpr MemoryKind kDevice = MemoryKind::kDevice;

struct Row {
  std::string claim;
  LaneEnd caller;
  LaneEnd shard;
  LaneConditions now;
  Lanes chosen;
};

class LaneChoiceTable : public ::testing::TestWithParam<Row> {};

TEST_P(LaneChoiceTable, Row) {
  const Row& row = GetParam();
  EXPECT_EQ(ChooseLanes(row.caller, row.shard, row.now), row.chosen) << row.claim;
}

const LaneEnd kHostA{{kV, kS}, "a", kHost};
const LaneEnd kHostB{{kV, kS}, "b", kHost};
const LaneEnd kUnknown{{kV, kS}, "", kHost};
const LaneEnd kTcpA{{kV, kT, kS}, "a", kHost};
const LaneEnd kTcpB{{kV, kT, kS}, "b", kHost};
const LaneEnd kStreamOnly{{kS}, "a", kHost};
const LaneEnd kGpuA{{kV, kN, kS}, "a", kDevice};
const LaneEnd kGpuB{{kV, kN, kS}, "b", kDevice};
const LaneConditions kSocket{.view_socket_connected = true};
const LaneConditions kUp{.nccl_link = NcclLinkState::kUp};

INSTANTIATE_TEST_SUITE_P(
    Choices, LaneChoiceTable,
    ::testing::Values(
        Row{"same host: view, then stream", kHostA, kHostA, kSocket, {kV, kS}},
        Row{"same boot id, socket out of reach (a container)", kHostA, kHostA, {}, {kS}},
        Row{"another host", kHostA, kHostB, kSocket, {kS}},
        Row{"two unknown hosts are not the same", kUnknown, kUnknown, kSocket, {kS}},
        Row{"one end without view", kStreamOnly, kHostA, kSocket, {kS}},
        Row{"between machines: tcp, then stream", kTcpA, kTcpB, kSocket, {kT, kS}},
        Row{"same host: view before tcp", kTcpA, kTcpA, kSocket, {kV, kT, kS}},
        Row{"one end without tcp", kTcpA, kHostB, kSocket, {kS}},
        Row{"tcp that was measured to be slow",
            kTcpA,
            kTcpB,
            {.rates = {.stream = 0.9e9, .tcp = 0.2e9}},
            {kS, kT}},
        Row{"tcp alone was measured, and is busy: no stream looks better for not having been",
            kTcpA,
            kTcpB,
            {.rates = {.tcp = 0.2e9}},
            {kT, kS}},
        Row{"no lane in common", {{kV}, "a", kHost}, {{kN}, "b", kHost}, kSocket, {}},
        Row{"stream not offered", {{kV}, "a", kHost}, kHostA, kSocket, {kV}},
        Row{"two GPUs, link up", kGpuA, kGpuB, kUp, {kN, kS}},
        Row{"link still warming", kGpuA, kGpuB, {.nccl_link = NcclLinkState::kWarming}, {kS}},
        Row{"link backing off", kGpuA, kGpuB, {.nccl_link = NcclLinkState::kBackingOff}, {kS}},
        Row{"host memory does not go by NCCL", kHostA, kGpuB, kUp, {kS}},
        Row{"a device reader maps host slots", kGpuA, kHostA, kSocket, {kV, kS}},
        Row{"device slots are no view for a reader that has no GPU", kHostA, kGpuA, kSocket, {kS}},
        Row{"device slots are copied for a host reader whose GPU reaches them",
            kHostA,
            kGpuA,
            {.view_socket_connected = true, .device_peer_access = true},
            {kV, kS}},
        Row{"device view needs peer access", kGpuA, kGpuA, kSocket, {kS}},
        Row{"a GPU of the same host is faster seen than sent to",
            kGpuA,
            kGpuA,
            {.view_socket_connected = true,
             .device_peer_access = true,
             .nccl_link = NcclLinkState::kUp},
            {kV, kN, kS}},
        Row{"a view that was seen to be slower than NCCL loses against it",
            kGpuA,
            kGpuA,
            {.view_socket_connected = true,
             .device_peer_access = true,
             .nccl_link = NcclLinkState::kUp,
             .rates = {.view = 2e9, .nccl = 3e9}},
            {kN, kV, kS}},
        Row{"a busy machine makes no lane look better for not having been tried",
            kHostA,
            kHostA,
            {.view_socket_connected = true, .rates = {.view = 1e8}},
            {kV, kS}},
        Row{"a slow NCCL link loses against the stream",
            kGpuA,
            kGpuB,
            {.nccl_link = NcclLinkState::kUp, .rates = {.nccl = 1e8, .stream = 2e9}},
            {kS, kN}},
        Row{"a small job goes where the first byte is quick",
            kGpuA,
            kGpuA,
            {.view_socket_connected = true,
             .device_peer_access = true,
             .nccl_link = NcclLinkState::kUp,
             .job_bytes = 4096},
            {kV, kN, kS}}));

TEST(LaneChoiceTest, ALinkIsWantedWhereItWouldBeChosenFirstAndIsNotUp) {
  EXPECT_TRUE(WantsNcclLink(kGpuA, kGpuB, {}));
  EXPECT_TRUE(WantsNcclLink(kGpuA, kGpuB, {.job_bytes = 4096}));
  EXPECT_TRUE(WantsNcclLink(kGpuA, kGpuB, {.nccl_link = NcclLinkState::kBackingOff}));
  EXPECT_FALSE(WantsNcclLink(kGpuA, kGpuB, kUp));
  EXPECT_FALSE(WantsNcclLink(kHostA, kGpuB, {}));
  EXPECT_FALSE(
      WantsNcclLink(kGpuA, kGpuA, {.view_socket_connected = true, .device_peer_access = true}));
  EXPECT_FALSE(WantsNcclLink(kGpuA, kGpuB, {.rates = {.nccl = 1e8, .stream = 2e9}}));
}

TEST(LaneChoiceTest, TheHostIdIsTheBootId) {
  EXPECT_EQ(ThisHostId(), ThisHostId());
  EXPECT_EQ(ThisHostId().size(), 36u);
}

TEST(LaneChoiceTest, EveryLinkStateHasAName) {
  for (int i = 0; i <= static_cast<int>(NcclLinkState::kClosed); ++i) {
    EXPECT_STRNE(NcclLinkStateName(static_cast<NcclLinkState>(i)), "unknown");
  }
}

}  // namespace
}  // namespace reprise::lanes
