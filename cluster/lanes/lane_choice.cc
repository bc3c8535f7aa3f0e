#include "cluster/lanes/lane_choice.h"

#include <algorithm>
#include <fstream>

#include "absl/time/time.h"
#include "proto/types/limits.h"

namespace reprise::lanes {
namespace {

struct Candidate {
  LaneKind kind;
  double seconds;
};

bool Has(const LaneEnd& end, LaneKind kind) {
  return std::find(end.lanes.begin(), end.lanes.end(), kind) != end.lanes.end();
}

bool ViewWorks(const LaneEnd& caller, const LaneEnd& shard, const LaneConditions& now) {
  if (caller.host_id.empty() || caller.host_id != shard.host_id) return false;
  if (!now.view_socket_connected) return false;
  // What is mapped serves a caller in either memory; device memory has to be reached first.
  return shard.memory == MemoryKind::kHost || now.device_peer_access;
}

bool NcclWorks(const LaneEnd& caller, const LaneEnd& shard, const LaneConditions& now) {
  return now.nccl_link == NcclLinkState::kUp && caller.memory == MemoryKind::kDevice &&
         shard.memory == MemoryKind::kDevice;
}

// What lanes are taken to carry before they were measured.
LaneRates Assumed(MemoryKind shard) {
  return {.view = shard == MemoryKind::kDevice ? limits::kDeviceViewBytesPerSecond
                                               : limits::kViewBytesPerSecond,
          .nccl = limits::kNcclBytesPerSecond,
          .stream = limits::kStreamBytesPerSecond,
          .tcp = limits::kTcpBytesPerSecond};
}

// A busy machine and the caller's own work slow down every lane: one that was not measured is taken
// to fall short of its figure like the best of those that were, so that no lane looks better for
// not having been tried.
LaneRates Expected(const LaneRates& measured, const LaneRates& assumed) {
  const double best = std::max({measured.view / assumed.view, measured.nccl / assumed.nccl,
                                measured.stream / assumed.stream, measured.tcp / assumed.tcp});
  const double share = best > 0 ? std::min(best, 1.0) : 1.0;
  const auto either = [share](double seen, double figure) {
    return seen > 0 ? seen : figure * share;
  };
  return {.view = either(measured.view, assumed.view),
          .nccl = either(measured.nccl, assumed.nccl),
          .stream = either(measured.stream, assumed.stream),
          .tcp = either(measured.tcp, assumed.tcp)};
}

double Seconds(absl::Duration setup, double rate, uint64_t job_bytes) {
  const uint64_t bytes = job_bytes > 0 ? job_bytes : limits::kLargeJobBytes;
  return absl::ToDoubleSeconds(setup) + static_cast<double>(bytes) / rate;
}

}  // namespace

const char* NcclLinkStateName(NcclLinkState state) {
  switch (state) {
    case NcclLinkState::kIdle:
      return "idle";
    case NcclLinkState::kConnecting:
      return "connecting";
    case NcclLinkState::kWarming:
      return "warming";
    case NcclLinkState::kUp:
      return "up";
    case NcclLinkState::kFailed:
      return "failed";
    case NcclLinkState::kBackingOff:
      return "backing off";
    case NcclLinkState::kClosed:
      return "closed";
  }
  return "unknown";
}

std::vector<LaneKind> ChooseLanes(const LaneEnd& caller, const LaneEnd& shard,
                                  const LaneConditions& now) {
  const auto both = [&](LaneKind kind) { return Has(caller, kind) && Has(shard, kind); };
  const LaneRates rates = Expected(now.rates, Assumed(shard.memory));
  std::vector<Candidate> candidates;
  if (both(LaneKind::kView) && ViewWorks(caller, shard, now)) {
    candidates.push_back({LaneKind::kView, Seconds(limits::kViewSetup, rates.view, now.job_bytes)});
  }
  if (both(LaneKind::kNccl) && NcclWorks(caller, shard, now)) {
    candidates.push_back({LaneKind::kNccl, Seconds(limits::kNcclSetup, rates.nccl, now.job_bytes)});
  }
  if (both(LaneKind::kTcp)) {
    candidates.push_back({LaneKind::kTcp, Seconds(limits::kTcpSetup, rates.tcp, now.job_bytes)});
  }
  if (both(LaneKind::kStream)) {
    candidates.push_back(
        {LaneKind::kStream, Seconds(limits::kStreamSetup, rates.stream, now.job_bytes)});
  }
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.seconds < b.seconds; });
  std::vector<LaneKind> kinds;
  for (const Candidate& candidate : candidates) kinds.push_back(candidate.kind);
  return kinds;
}

bool WantsNcclLink(const LaneEnd& caller, const LaneEnd& shard, const LaneConditions& now) {
  if (now.nccl_link == NcclLinkState::kUp) return false;
  LaneConditions with_link = now;
  with_link.nccl_link = NcclLinkState::kUp;
  // A link is worth its making when large jobs are; a small one that asks first is no reason
  // against it.
  with_link.job_bytes = 0;
  const std::vector<LaneKind> lanes = ChooseLanes(caller, shard, with_link);
  return !lanes.empty() && lanes.front() == LaneKind::kNccl;
}

std::string ThisHostId() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id;
}

}  // namespace reprise::lanes
