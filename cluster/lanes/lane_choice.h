// Which lanes to use between two ends, best first: a pure function of what both ends can do, what
// state the links are in, and what rates were measured.
//
// Invariants: a lane is chosen only when both ends have it and what it needs is there now; the
// stream and tcp lanes need nothing and are in every answer in which both ends have them; equal
// input, equal answer. Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cluster/lanes/lane.h"
#include "cluster/lanes/lane_rates.h"
#include "proto/types/ids.h"

namespace reprise::lanes {

// How far the NCCL link between two processes is. nccl/link_state.h says how it moves.
enum class NcclLinkState : uint8_t {
  kIdle = 0,    // nobody wants it
  kConnecting,  // the communicator is being made
  kWarming,     // its first transfer runs
  kUp,
  kFailed,      // being aborted
  kBackingOff,  // waits before the next try
  kClosed       // for good
};

const char* NcclLinkStateName(NcclLinkState state);  // "idle", "connecting", ...

// What one end of a connection can do.
struct LaneEnd {
  std::vector<LaneKind> lanes;  // that the process is built and allowed to use
  std::string host_id;          // boot id of the machine; empty: unknown, never the same host
  MemoryKind memory = MemoryKind::kHost;  // where the blocks are
};

struct LaneConditions {
  bool view_socket_connected = false;  // same boot id alone does not mean the same mount namespace
  bool device_peer_access = false;     // the caller's GPU maps the shard's extents (CUDA IPC)
  NcclLinkState nccl_link = NcclLinkState::kIdle;
  LaneRates rates;
  uint64_t job_bytes = 0;  // what is about to move; 0: a large job
};

// Lanes by expected time of the job, shortest first. Empty when the ends share none.
std::vector<LaneKind> ChooseLanes(const LaneEnd& caller, const LaneEnd& shard,
                                  const LaneConditions& now);

// Whether the ends would be better off with an NCCL link than they are: it would be chosen first if
// it were up, and it is not. A link is made for those pairs alone.
bool WantsNcclLink(const LaneEnd& caller, const LaneEnd& shard, const LaneConditions& now);

// The boot id of this machine ("" where the kernel has none): equal on every process of one
// machine, different after a restart of it.
std::string ThisHostId();

}  // namespace reprise::lanes
