// The caller's end of the tcp lane: sockets to the shard's own port. Bytes are received where the
// sink wants them and sent from where the source has them, without gRPC's framing and copies in
// between; and verbs are asked on the same connections while those are free.
//
// Invariants: a call in which nothing moves for limits::kLaneDeadlineShare of its time, or whose
// peer is gone or says nonsense, is UNAVAILABLE (LANE_DOWN); after that the lane is not Ready for
// limits::kTcpRetryMin, doubling up to kTcpRetryMax while it goes on so. Thread safety: calls may
// run in parallel, up to limits::kTcpConnectionsPerLaneMax at one time; others wait.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
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

  // Dials nothing. UNAVAILABLE (LANE_DOWN) where there is a key and no TLS.
  static absl::StatusOr<std::unique_ptr<TcpLane>> Create(Options options);
  ~TcpLane() override;

  // Whether a call may be expected to go well. The first time, and when a lane that failed is due,
  // it begins to dial in the background and says no: whoever has another lane need not wait for a
  // port that may be out of reach.
  bool Ready();

  LaneKind kind() const override { return LaneKind::kTcp; }
  uint32_t flows() const override { return limits::kTcpConnectionsPerLaneMax; }
  bool notices_stalls() const override { return true; }
  absl::Status Read(const ReadJob& job, BlockSink& sink, absl::Time deadline) override;
  absl::Status Write(const WriteJob& job, BlockSource& source, absl::Time deadline) override;

  // What the shard answers to a verb, or refuses it with: see VerbHost. nullopt: it is to be asked
  // over gRPC, since the lane is not Ready, all connections are busy, the request is larger than
  // limits::kTcpVerbBytesMax, the port does not answer that (UNIMPLEMENTED), or the lane failed,
  // after which the shard may have done what was asked. An answer to Reserve and Commit is waited
  // for until the deadline, however long nothing moves. DEADLINE_EXCEEDED. REQUIRES: the shard
  // answers verbs on its port.
  std::optional<absl::StatusOr<std::string>> Ask(tcp::Verb verb, absl::string_view request,
                                                 absl::Time deadline);

 private:
  class Call;

  TcpLane(Options options, std::unique_ptr<const tcp::TlsContext> tls);
  absl::StatusOr<tcp::DataSocket> Dial(MonotonicDeadline deadline) const;
  void DialAhead();
  // How a call ended, or why a dial failed.
  void Note(const absl::Status& status);

  const Options options_;
  const std::unique_ptr<const tcp::TlsContext> tls_;  // nullptr: plaintext
  ConnectionPool<tcp::DataSocket> connections_;
  absl::Mutex mu_;
  bool reached_ ABSL_GUARDED_BY(mu_) = false;  // since the last failure
  bool dialling_ ABSL_GUARDED_BY(mu_) = false;
  absl::Duration rest_ ABSL_GUARDED_BY(mu_);  // after the last failure; zero: none since a success
  absl::Time rests_until_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();  // on MonotonicClock()
  std::thread dialler_ ABSL_GUARDED_BY(mu_);
};

}  // namespace reprise::lanes
