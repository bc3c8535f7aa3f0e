// The calls of one connection, at the shard: sends leased blocks from their slots, receives blocks
// into reserved ones, and has verbs answered. What is in device memory or in a file goes through a
// staging buffer.
//
// Invariants: a slot is pinned while bytes go out of it or come into it, and no longer; a block is
// Written only when all of its bytes came; a call takes limits::kByteStreamAgeMax at most, and a
// frame, or a part of one that is staged, limits::kTcpFrameTimeout; between calls nothing is kept.
// Thread safety: one thread at a time; may wait for the peer, and for a disk.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cluster/lanes/lane.h"
#include "cluster/lanes/monotonic_deadline.h"
#include "cluster/lanes/tcp/data_socket.h"
#include "cluster/lanes/tcp/tcp_wire.h"
#include "cluster/lanes/tcp/verb_host.h"

namespace reprise::lanes {

// Asked before a call begins: what is returned is held until it is over, and an error refuses it.
// Empty: always admitted.
struct TcpGuards {
  using Admit = std::function<absl::StatusOr<std::shared_ptr<const void>>()>;
  Admit read;
  Admit file;  // beside `read`, when some block is in a file
  Admit write;
};

namespace tcp {

class CallServer {
 public:
  struct Options {
    LaneHost* host = nullptr;  // REQUIRES: all outlive this
    const TcpGuards* guards = nullptr;
    DataSocket* socket = nullptr;
    AttachmentId attachment;
    VerbHost* verbs = nullptr;
  };
  explicit CallServer(const Options& options) : options_(options) {}

  // The call that begins with the frame of this header. Not OK: the connection is over. A call that
  // was refused is answered, and OK.
  absl::Status Serve(const Header& header);

 private:
  absl::Status ServeCall(const Header& header);
  absl::Status ServeRead(const Read& request);
  absl::Status ServeWrite(const Write& request);
  absl::Status ServeVerb(const Header& header);

  struct Opened {
    std::vector<PinnedBytes> blocks;
    std::vector<std::shared_ptr<const void>> tickets;
  };
  absl::StatusOr<Opened> Open(const Read& request);
  // `told` is set when the block cannot be read and the caller was told so instead.
  absl::Status SendStaged(uint32_t block, const PinnedBytes& bytes, bool& told);
  // `refused` is why the block was not written. The body is received in any case.
  absl::Status Take(const Header& header, ReservationId reservation, absl::Status& refused);
  absl::Status ReceiveStaged(const PinnedSlot& slot, absl::Status& refused);
  absl::Status Discard(uint64_t bytes);

  absl::Status Answer(absl::Status status) {
    return options_.socket->Send(Outcome{std::move(status)}, FrameEnd());
  }
  MonotonicDeadline FrameEnd() const { return call_end_.OrAfter(limits::kTcpFrameTimeout); }
  std::span<uint8_t> Staging(uint64_t bytes);

  const Options options_;
  MonotonicDeadline call_end_ = MonotonicDeadline::Never();
  std::unique_ptr<uint8_t[]> staging_;  // limits::kStreamChunkBytes, of this call
};

}  // namespace tcp
}  // namespace reprise::lanes
