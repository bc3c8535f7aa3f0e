// Makes the lanes of one link, best first, from what the shard's welcome offers.
//
// Thread safety: free functions; no shared state.
#pragma once

#include <grpcpp/channel.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "cluster/lanes/lane.h"
#include "cluster/lanes/tcp/tcp_keys.h"
#include "cluster/lanes/tcp/tcp_lane.h"
#include "cluster/link/nccl_context.h"
#include "proto/types/ids.h"

namespace reprise::cluster {

struct LaneOffer {
  std::shared_ptr<grpc::Channel> channel;
  AttachmentId attachment;
  std::vector<LaneKind> lanes;  // that both ends can use, the shard's best first
  std::string view_socket;      // empty: no view lane
  std::string tcp_host;         // a numeric address; empty: no tcp lane
  uint16_t tcp_port = 0;
  std::optional<lanes::TcpKey> tcp_key;     // nullopt: plaintext
  std::shared_ptr<const NcclContext> nccl;  // nullptr: no NCCL lane
  absl::Time deadline;  // for what it takes to open a lane; late lanes are left out
};

struct LinkLane {
  std::unique_ptr<lanes::Lane> lane;
  lanes::TcpLane* tcp = nullptr;  // part of `lane`; nullptr: it has none
  // Ends what the lane keeps of an attachment that is over: LinkedLane::Closer(). May be empty.
  std::function<void()> close;
};

// Never fails: what cannot be opened is left out, and the stream lane needs nothing.
LinkLane MakeLane(const LaneOffer& offer);

}  // namespace reprise::cluster
