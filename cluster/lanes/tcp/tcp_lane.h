// The caller's end of the tcp lane: sockets to the shard's own port. Bytes are received where the
// sink wants them and sent from where the source has them, without gRPC's framing and copies in
// between.
//
// Invariants: when the port cannot be reached or says nonsense, every call is UNAVAILABLE
// (LANE_DOWN) at once, and it is tried again after limits::kTcpRetryAfter. Thread safety: calls may
// run in parallel, up to limits::kTcpConnectionsPerLaneMax at one time; others wait.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "cluster/lanes/connection_pool.h"
#include "cluster/lanes/lane.h"
#include "cluster/lanes/tcp/data_socket.h"
#include "cluster/lanes/tcp/tcp_keys.h"
#include "cluster/lanes/tcp/tcp_tls.h"
#include "proto/types/limits.h"

namespace reprise::lanes {

class TcpLane final : public Lane {
 public:
  struct Options {
    std::string host;  // a numeric address
    uint16_t port = 0;
    AttachmentId attachment;
    std::optional<TcpKey> key;  // nullopt: plaintext
  };

  // UNAVAILABLE (LANE_DOWN) when the port is out of reach, or serves somebody else.
  static absl::StatusOr<std::unique_ptr<TcpLane>> Connect(Options options, absl::Time deadline);

  LaneKind kind() const override { return LaneKind::kTcp; }
  uint32_t flows() const override { return limits::kTcpConnectionsPerLaneMax; }
  absl::Status Read(const ReadJob& job, BlockSink& sink, absl::Time deadline) override;
  absl::Status Write(const WriteJob& job, BlockSource& source, absl::Time deadline) override;

 private:
  class Call;

  explicit TcpLane(Options options);
  absl::StatusOr<tcp::DataSocket> Dial(MonotonicDeadline deadline) const;

  const Options options_;
  const std::unique_ptr<const tcp::TlsContext> tls_;  // nullptr: plaintext
  ConnectionPool<tcp::DataSocket> connections_;
};

}  // namespace reprise::lanes
