// Both ends of a tcp lane in one process, over loopback, for tests and benchmarks.
//
// Thread safety: as the lane and the server.
#pragma once

#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "cluster/lanes/tcp/tcp_lane.h"
#include "cluster/lanes/tcp/tcp_server.h"
#include "proto/types/status_macros.h"

namespace reprise::testing {

// False when the lane's port was not reached in time.
inline bool AwaitReady(lanes::TcpLane& lane) {
  const absl::Time end = absl::Now() + absl::Seconds(30);
  while (absl::Now() < end) {
    if (lane.Ready()) return true;
    std::this_thread::yield();
  }
  return false;
}

class TcpLaneEnds {
 public:
  // REQUIRES: the host outlives this.
  TcpLaneEnds(lanes::TcpServer::Options options, AttachmentId attachment)
      : server_(*lanes::TcpServer::Create(std::move(options))),
        key_(*server_->Welcome(attachment)),
        lane_(*lanes::TcpLane::Create(To(attachment))) {}

  lanes::TcpServer& server() { return *server_; }
  lanes::TcpLane& lane() { return *lane_; }
  // How a caller reaches the server as `attachment`, with the key of the one above.
  lanes::TcpLane::Options To(AttachmentId attachment) const {
    return {.host = "127.0.0.1", .port = server_->port(), .attachment = attachment, .key = key_};
  }

 private:
  const std::unique_ptr<lanes::TcpServer> server_;
  const std::optional<lanes::TcpKey> key_;
  const std::unique_ptr<lanes::TcpLane> lane_;
};

}  // namespace reprise::testing
