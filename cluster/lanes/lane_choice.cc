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
  if (!now.view_socket_connected || caller.memory != shard.memory) return false;
  return shard.memory == MemoryKind::kHost || now.device_peer_access;
}

bool NcclWorks(const LaneEnd& caller, const LaneEnd& shard, const LaneConditions& now) {
  return now.nccl_link == NcclLinkState::kUp && caller.memory == MemoryKind::kDevice &&
         shard.memory == MemoryKind::kDevice;
}

double Seconds(absl::Duration setup, double measured, double assumed, uint64_t job_bytes) {
  const double rate = measured > 0 ? measured : assumed;
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
  std::vector<Candidate> candidates;
  if (both(LaneKind::kView) && ViewWorks(caller, shard, now)) {
    candidates.push_back({LaneKind::kView, Seconds(limits::kViewSetup, now.rates.view,
                                                   limits::kViewBytesPerSecond, now.job_bytes)});
  }
  if (both(LaneKind::kNccl) && NcclWorks(caller, shard, now)) {
    candidates.push_back({LaneKind::kNccl, Seconds(limits::kNcclSetup, now.rates.nccl,
                                                   limits::kNcclBytesPerSecond, now.job_bytes)});
  }
  if (both(LaneKind::kStream)) {
    candidates.push_back(
        {LaneKind::kStream, Seconds(limits::kStreamSetup, now.rates.stream,
                                    limits::kStreamBytesPerSecond, now.job_bytes)});
  }
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.seconds < b.seconds; });
  std::vector<LaneKind> kinds;
  for (const Candidate& candidate : candidates) kinds.push_back(candidate.kind);
  return kinds;
}

std::string ThisHostId() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id;
}

}  // namespace reprise::lanes
