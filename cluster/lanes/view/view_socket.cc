#include "cluster/lanes/view/view_socket.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>

#include "absl/strings/str_cat.h"
#include "cluster/lanes/lane_status.h"
#include "proto/types/status_macros.h"

namespace reprise::lanes::view {
namespace {

constexpr char kLane[] = "view lane";

// The descriptors in `message`; all but the first are closed.
Descriptor TakeDescriptor(msghdr& message) {
  Descriptor taken;
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
      Descriptor owned(fd);
      if (!taken) taken = std::move(owned);
    }
  }
  return taken;
}

}  // namespace

absl::Status OutOfStep(size_t message_index) {
  return LaneDown(
      absl::StrCat("view lane: a message of type ", message_index, " came out of turn"));
}

absl::StatusOr<ViewSocket> ViewSocket::Connect(const std::string& address,
                                               MonotonicDeadline deadline) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (address.size() < 2 || address.size() >= sizeof(name.sun_path)) {
    return LaneDown(absl::StrCat("view lane: the socket name has ", address.size(), " bytes"));
  }
  std::memcpy(name.sun_path, address.data(), address.size());
  if (address[0] == '@') name.sun_path[0] = '\0';
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address.size());
  Descriptor fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return ErrnoDown(kLane, "socket");
  // A full backlog is the same as no listener: the next lane carries the job.
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&name), length) != 0)
    return ErrnoDown(kLane, "connect");
  ViewSocket socket(std::move(fd));
  REPRISE_RETURN_IF_ERROR(socket.CheckPeer());
  return socket;
}

absl::Status ViewSocket::CheckPeer() const {
  ucred peer{};
  socklen_t bytes = sizeof(peer);
  if (::getsockopt(socket_.get(), SOL_SOCKET, SO_PEERCRED, &peer, &bytes) != 0)
    return ErrnoDown(kLane, "SO_PEERCRED");
  if (peer.uid == ::geteuid()) return absl::OkStatus();
  return LaneDown(
      absl::StrCat("view lane: the peer runs as user ", peer.uid, " and not as ", ::geteuid()));
}

absl::Status ViewSocket::Send(const Message& message, MonotonicDeadline deadline, int descriptor) {
  const std::string bytes = Encode(message);
  size_t sent = 0;
  while (sent < bytes.size()) {
    iovec part{const_cast<char*>(bytes.data()) + sent, bytes.size() - sent};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    if (descriptor >= 0 && sent == 0) {
      header.msg_control = control;
      header.msg_controllen = sizeof(control);
      cmsghdr* c = CMSG_FIRSTHDR(&header);
      c->cmsg_level = SOL_SOCKET;
      c->cmsg_type = SCM_RIGHTS;
      c->cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(c), &descriptor, sizeof(descriptor));
    }
    const ssize_t n = ::sendmsg(socket_.get(), &header, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
      sent += static_cast<size_t>(n);
    } else if (n < 0 && WouldBlock()) {
      REPRISE_RETURN_IF_ERROR(socket_.Wait(POLLOUT, deadline, kLane));
    } else if (n < 0 && errno != EINTR) {
      return ErrnoDown(kLane, "send");
    }
  }
  return absl::OkStatus();
}

absl::Status ViewSocket::ReceiveBytes(uint8_t* to, size_t bytes, MonotonicDeadline deadline,
                                      Descriptor& descriptor) {
  while (bytes > 0) {
    iovec part{to, bytes};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    alignas(cmsghdr) char control[CMSG_SPACE(4 * sizeof(int))] = {};
    header.msg_control = control;
    header.msg_controllen = sizeof(control);
    const ssize_t n = ::recvmsg(socket_.get(), &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (n > 0) {
      if (Descriptor taken = TakeDescriptor(header); taken) descriptor = std::move(taken);
      to += n;
      bytes -= static_cast<size_t>(n);
    } else if (n == 0) {
      return LaneDown("view lane: the peer closed the connection");
    } else if (WouldBlock()) {
      REPRISE_RETURN_IF_ERROR(socket_.Wait(POLLIN, deadline, kLane));
    } else if (errno != EINTR) {
      return ErrnoDown(kLane, "receive");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Received> ViewSocket::Receive(MonotonicDeadline deadline) {
  uint8_t header_bytes[kHeaderBytes];
  Descriptor descriptor;
  REPRISE_RETURN_IF_ERROR(ReceiveBytes(header_bytes, kHeaderBytes, deadline, descriptor));
  REPRISE_ASSIGN_OR_RETURN(const Header header, DecodeHeader(header_bytes));
  std::vector<uint8_t> body(header.body_bytes);
  REPRISE_RETURN_IF_ERROR(ReceiveBytes(body.data(), body.size(), deadline, descriptor));
  REPRISE_ASSIGN_OR_RETURN(Message message, DecodeBody(header, body));
  return Received{std::move(message), std::move(descriptor)};
}

bool ViewSocket::Quiet() const {
  return socket_.Quiet();
}

void ViewSocket::Shutdown() {
  ::shutdown(socket_.get(), SHUT_RDWR);
}

void ViewSocket::ShutdownSending() {
  ::shutdown(socket_.get(), SHUT_WR);
}

}  // namespace reprise::lanes::view
