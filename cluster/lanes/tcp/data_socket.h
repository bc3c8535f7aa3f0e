// One end of a connection of the tcp lane: messages and the bytes of blocks, in plaintext or over
// TLS, every wait with a deadline.
//
// Invariants: bytes go out from where they lie and come in to where they are wanted; after any
// error the stream is out of step and the socket good for nothing but closing. Thread safety: one
// thread at a time; Shutdown from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "cluster/lanes/descriptor.h"
#include "cluster/lanes/monotonic_deadline.h"
#include "cluster/lanes/tcp/socket_wait.h"
#include "cluster/lanes/tcp/tcp_tls.h"
#include "cluster/lanes/tcp/tcp_wire.h"

namespace reprise::lanes::tcp {

class DataSocket {
 public:
  explicit DataSocket(Descriptor socket) : socket_(std::move(socket)) {}

  // Of the calls that follow: how long they go on without a byte either way.
  void set_stall(absl::Duration stall) { stall_ = stall; }

  // From here on over TLS. As TlsSession.
  absl::Status ConnectTls(const TlsContext& context, const TcpKey& key, MonotonicDeadline deadline);
  absl::StatusOr<AttachmentId> AcceptTls(const TlsContext& context, MonotonicDeadline deadline);

  // UNAVAILABLE (LANE_DOWN) when the peer is gone or nothing moves; DEADLINE_EXCEEDED.
  absl::Status Send(const Message& message, MonotonicDeadline deadline);
  absl::Status SendBlock(uint32_t block, std::span<const uint8_t> bytes,
                         MonotonicDeadline deadline);
  // A block in parts: SendBlockPart follows until all of its bytes were sent.
  absl::Status BeginBlock(uint32_t block, uint64_t block_bytes, MonotonicDeadline deadline);
  absl::Status SendBlockPart(std::span<const uint8_t> bytes, MonotonicDeadline deadline);
  // REQUIRES: at most limits::kTcpVerbBytesMax.
  absl::Status SendVerb(Verb verb, absl::string_view request, MonotonicDeadline deadline);
  absl::Status SendAnswer(Verb verb, absl::string_view response, MonotonicDeadline deadline);

  // The next frame's header. As Send, and INVALID_ARGUMENT when what came is none. Its body
  // follows, by one of the others.
  absl::StatusOr<Header> ReceiveHeader(MonotonicDeadline deadline);
  absl::StatusOr<Message> ReceiveMessage(const Header& header, MonotonicDeadline deadline);
  // Of a verb or an answer.
  absl::StatusOr<std::string> ReceiveBody(const Header& header, MonotonicDeadline deadline);
  absl::Status ReceiveBytes(std::span<uint8_t> into, MonotonicDeadline deadline);
  // The next frame, which has to be an Expected; UNAVAILABLE (LANE_DOWN) when it is something else.
  template <typename Expected>
  absl::StatusOr<Expected> ReceiveOnly(MonotonicDeadline deadline);

  // Connected, and nothing has arrived that was not received.
  bool Quiet() const { return (tls_ == nullptr || !tls_->Pending()) && socket_.Quiet(); }
  // Wakes whoever waits, for good.
  void Shutdown();

 private:
  absl::Status SendBytes(std::span<const uint8_t> head, std::span<const uint8_t> rest,
                         MonotonicDeadline deadline);

  SocketWait Until(MonotonicDeadline deadline) const {
    return {.deadline = deadline, .stall = stall_};
  }

  Descriptor socket_;
  absl::Duration stall_ = absl::InfiniteDuration();
  std::unique_ptr<TlsSession> tls_;  // nullptr: plaintext
};

absl::Status OutOfStep(uint32_t type);
// A peer that speaks nonsense is as good as none.
absl::Status AsLaneFailure(const absl::Status& status);

template <typename Expected>
absl::StatusOr<Expected> DataSocket::ReceiveOnly(MonotonicDeadline deadline) {
  const absl::StatusOr<Header> header = ReceiveHeader(deadline);
  if (!header.ok()) return AsLaneFailure(header.status());
  if (!header->is_message()) return OutOfStep(header->type);
  absl::StatusOr<Message> message = ReceiveMessage(*header, deadline);
  if (!message.ok()) return AsLaneFailure(message.status());
  Expected* const expected = std::get_if<Expected>(&*message);
  if (expected == nullptr) return OutOfStep(header->type);
  return std::move(*expected);
}

}  // namespace reprise::lanes::tcp
