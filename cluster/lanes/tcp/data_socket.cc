#include "cluster/lanes/tcp/data_socket.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cluster/lanes/lane_status.h"
#include "proto/types/status_macros.h"

namespace reprise::lanes::tcp {
namespace {

constexpr char kLane[] = "tcp lane";

std::span<const uint8_t> BytesOf(absl::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

}  // namespace

absl::Status OutOfStep(uint32_t type) {
  return LaneDown(absl::StrCat(kLane, ": a message of type ", type, " came out of turn"));
}

absl::Status AsLaneFailure(const absl::Status& status) {
  if (absl::IsInvalidArgument(status)) return LaneDown(status.message());
  return status;
}

absl::Status DataSocket::ConnectTls(const TlsContext& context, const TcpKey& key,
                                    MonotonicDeadline deadline) {
  REPRISE_ASSIGN_OR_RETURN(tls_, TlsSession::Connect(context, socket_, key, deadline));
  return absl::OkStatus();
}

absl::StatusOr<AttachmentId> DataSocket::AcceptTls(const TlsContext& context,
                                                   MonotonicDeadline deadline) {
  REPRISE_ASSIGN_OR_RETURN(tls_, TlsSession::Accept(context, socket_, deadline));
  return tls_->attachment();
}

absl::Status DataSocket::Send(const Message& message, MonotonicDeadline deadline) {
  const std::string bytes = Encode(message);
  return SendBytes(BytesOf(bytes), {}, deadline);
}

absl::Status DataSocket::SendBlock(uint32_t block, std::span<const uint8_t> bytes,
                                   MonotonicDeadline deadline) {
  return SendBytes(EncodeBlockHeader(block, bytes.size()), bytes, deadline);
}

absl::Status DataSocket::BeginBlock(uint32_t block, uint64_t block_bytes,
                                    MonotonicDeadline deadline) {
  return SendBytes(EncodeBlockHeader(block, block_bytes), {}, deadline);
}

absl::Status DataSocket::SendBlockPart(std::span<const uint8_t> bytes, MonotonicDeadline deadline) {
  return SendBytes(bytes, {}, deadline);
}

absl::Status DataSocket::SendVerb(Verb verb, absl::string_view request,
                                  MonotonicDeadline deadline) {
  return SendBytes(EncodeVerbHeader(verb, request.size()), BytesOf(request), deadline);
}

absl::Status DataSocket::SendAnswer(Verb verb, absl::string_view response,
                                    MonotonicDeadline deadline) {
  return SendBytes(EncodeAnswerHeader(verb, response.size()), BytesOf(response), deadline);
}

absl::Status DataSocket::SendBytes(std::span<const uint8_t> head, std::span<const uint8_t> rest,
                                   MonotonicDeadline deadline) {
  const SocketWait wait = Until(deadline);
  if (tls_ != nullptr) {
    REPRISE_RETURN_IF_ERROR(tls_->Send(socket_, head, wait));
    REPRISE_RETURN_IF_ERROR(tls_->Send(socket_, rest, wait));
    return tls_->Flush(socket_, wait);
  }
  while (!head.empty() || !rest.empty()) {
    REPRISE_RETURN_IF_ERROR(wait.Check());
    std::array<iovec, 2> parts = {iovec{const_cast<uint8_t*>(head.data()), head.size()},
                                  iovec{const_cast<uint8_t*>(rest.data()), rest.size()}};
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = parts.size();
    const ssize_t n = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
      const size_t of_head = std::min(head.size(), static_cast<size_t>(n));
      head = head.subspan(of_head);
      rest = rest.subspan(static_cast<size_t>(n) - of_head);
    } else if (n < 0 && WouldBlock()) {
      REPRISE_RETURN_IF_ERROR(wait.For(socket_, POLLOUT));
    } else if (n < 0 && errno != EINTR) {
      return ErrnoDown(kLane, "send");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Header> DataSocket::ReceiveHeader(MonotonicDeadline deadline) {
  std::array<uint8_t, kHeaderBytes> bytes;
  REPRISE_RETURN_IF_ERROR(ReceiveBytes(bytes, deadline));
  return DecodeHeader(bytes);
}

absl::StatusOr<Message> DataSocket::ReceiveMessage(const Header& header,
                                                   MonotonicDeadline deadline) {
  std::vector<uint8_t> body(header.body_bytes);
  REPRISE_RETURN_IF_ERROR(ReceiveBytes(body, deadline));
  return DecodeBody(header, body);
}

absl::StatusOr<std::string> DataSocket::ReceiveBody(const Header& header,
                                                    MonotonicDeadline deadline) {
  std::string body(header.body_bytes, '\0');
  REPRISE_RETURN_IF_ERROR(
      ReceiveBytes({reinterpret_cast<uint8_t*>(body.data()), body.size()}, deadline));
  return body;
}

absl::Status DataSocket::ReceiveBytes(std::span<uint8_t> into, MonotonicDeadline deadline) {
  const SocketWait wait = Until(deadline);
  if (tls_ != nullptr) return tls_->Receive(socket_, into, wait);
  while (!into.empty()) {
    REPRISE_RETURN_IF_ERROR(wait.Check());
    const ssize_t n = ::recv(socket_.get(), into.data(), into.size(), MSG_DONTWAIT);
    if (n > 0) {
      into = into.subspan(static_cast<size_t>(n));
    } else if (n == 0) {
      return LaneDown(absl::StrCat(kLane, ": the peer closed the connection"));
    } else if (WouldBlock()) {
      REPRISE_RETURN_IF_ERROR(wait.For(socket_, POLLIN));
    } else if (errno != EINTR) {
      return ErrnoDown(kLane, "receive");
    }
  }
  return absl::OkStatus();
}

void DataSocket::Shutdown() {
  ::shutdown(socket_.get(), SHUT_RDWR);
}

}  // namespace reprise::lanes::tcp
