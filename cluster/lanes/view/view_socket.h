// One end of a connection of the view lane: whole messages over a Unix socket, each with at most
// one descriptor, every wait with a deadline.
//
// Invariants: a received descriptor is close-on-exec and owned by whoever took it; after any error
// the stream is out of step and the socket good for nothing but closing. Thread safety: Send and
// Receive from one thread at a time; Shutdown and ShutdownSending from any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cluster/lanes/descriptor.h"
#include "cluster/lanes/monotonic_deadline.h"
#include "cluster/lanes/view/view_wire.h"

namespace reprise::lanes::view {

struct Received {
  Message message;
  Descriptor descriptor;  // none when the message came without
};

class ViewSocket {
 public:
  explicit ViewSocket(Descriptor socket) : socket_(std::move(socket)) {}

  // Connects to `address` ("@name": abstract). UNAVAILABLE (LANE_DOWN) when nobody of our own user
  // listens there.
  static absl::StatusOr<ViewSocket> Connect(const std::string& address, MonotonicDeadline deadline);

  // UNAVAILABLE (LANE_DOWN) when the peer is gone; DEADLINE_EXCEEDED. `descriptor` stays the
  // caller's.
  absl::Status Send(const Message& message, MonotonicDeadline deadline, int descriptor = -1);
  // The same, and INVALID_ARGUMENT when what came is no message.
  absl::StatusOr<Received> Receive(MonotonicDeadline deadline);
  // The next message, which has to be an Expected; UNAVAILABLE (LANE_DOWN) when it is something
  // else.
  template <typename Expected>
  absl::StatusOr<Expected> ReceiveOnly(MonotonicDeadline deadline,
                                       Descriptor* descriptor = nullptr);

  // Connected, and nothing has arrived that nobody asked for.
  bool Quiet() const;
  // Wakes whoever waits in Send or Receive, for good.
  void Shutdown();
  // The peer receives nothing more; what it sends still arrives.
  void ShutdownSending();
  // UNAUTHENTICATED unless the process at the other end runs under our user id.
  absl::Status CheckPeer() const;

 private:
  absl::Status ReceiveBytes(uint8_t* to, size_t bytes, MonotonicDeadline deadline,
                            Descriptor& descriptor);

  Descriptor socket_;
};

absl::Status OutOfStep(size_t message_index);

template <typename Expected>
absl::StatusOr<Expected> ViewSocket::ReceiveOnly(MonotonicDeadline deadline,
                                                 Descriptor* descriptor) {
  absl::StatusOr<Received> received = Receive(deadline);
  if (!received.ok()) return received.status();
  Expected* message = std::get_if<Expected>(&received->message);
  if (message == nullptr) return OutOfStep(received->message.index());
  if (descriptor != nullptr) *descriptor = std::move(received->descriptor);
  return std::move(*message);
}

}  // namespace reprise::lanes::view
