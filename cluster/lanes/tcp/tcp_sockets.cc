#include "cluster/lanes/tcp/tcp_sockets.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cluster/lanes/lane_status.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::lanes::tcp {
namespace {

constexpr char kLane[] = "tcp lane";

using Addresses = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

absl::StatusOr<Addresses> Resolve(const std::string& host, uint16_t port, int flags) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int failed = ::getaddrinfo(host.c_str(), absl::StrCat(port).c_str(), &hints, &found);
  if (failed != 0) {
    return absl::UnavailableError(absl::StrCat(host, ": ", ::gai_strerror(failed)));
  }
  return Addresses(found, &::freeaddrinfo);
}

uint16_t PortOf(const Descriptor& socket) {
  sockaddr_storage bound{};
  socklen_t bytes = sizeof(bound);
  if (::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&bound), &bytes) != 0) return 0;
  return bound.ss_family == AF_INET6 ? ntohs(reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port)
                                     : ntohs(reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
}

void SetPort(sockaddr& address, uint16_t port) {
  if (address.sa_family == AF_INET6)
    reinterpret_cast<sockaddr_in6&>(address).sin6_port = htons(port);
  if (address.sa_family == AF_INET) reinterpret_cast<sockaddr_in&>(address).sin_port = htons(port);
}

bool IsWildcard(const std::string& host) {
  return host.empty() || host == "0.0.0.0" || host == "::";
}

// A socket without a descriptor when this address cannot be listened on; errno says why.
Descriptor ListenOn(const addrinfo& address, bool wildcard) {
  Descriptor socket(
      ::socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP));
  if (!socket) return socket;
  const int on = 1;
  // A restart takes the port that connections of before still linger on.
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const int v6_only = wildcard ? 0 : 1;
  if (address.ai_family == AF_INET6) {
    ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, sizeof(v6_only));
  }
  if (::bind(socket.get(), address.ai_addr, address.ai_addrlen) != 0 ||
      ::listen(socket.get(), static_cast<int>(limits::kTcpConnectionsMax)) != 0) {
    return Descriptor();
  }
  return socket;
}

absl::Status CannotListen(const std::string& host, uint16_t port, absl::string_view why) {
  return Refusal(absl::StatusCode::kUnavailable, "TCP_LISTEN",
                 absl::StrCat("cannot listen on ", host, ", port ", port, ", for the tcp lane: ",
                              why, ": choose another --tcp-port, or --no-tcp"));
}

}  // namespace

absl::StatusOr<Listeners> Listen(const std::string& host, uint16_t port) {
  const bool wildcard = IsWildcard(host);
  Listeners listeners{.sockets = {}, .port = port};
  std::string why = "no address";
  // gRPC takes either wildcard for both families, and so must this.
  for (const std::string& name :
       wildcard ? std::vector<std::string>{"::", "0.0.0.0"} : std::vector<std::string>{host}) {
    const absl::StatusOr<Addresses> addresses = Resolve(name, port, AI_PASSIVE);
    if (!addresses.ok()) {
      why = std::string(addresses.status().message());
      continue;
    }
    for (addrinfo* one = addresses->get(); one != nullptr; one = one->ai_next) {
      SetPort(*one->ai_addr, listeners.port);
      Descriptor socket = ListenOn(*one, wildcard);
      if (!socket) {
        why = std::strerror(errno);
        if (errno == EADDRNOTAVAIL || errno == EAFNOSUPPORT) continue;
        return CannotListen(host, port, why);
      }
      listeners.port = PortOf(socket);
      listeners.sockets.push_back(std::move(socket));
    }
    if (wildcard && !listeners.sockets.empty()) break;
  }
  if (!listeners.sockets.empty()) return listeners;
  return CannotListen(host, port, why);
}

absl::StatusOr<Descriptor> Dial(const std::string& host, uint16_t port,
                                MonotonicDeadline deadline) {
  const absl::StatusOr<Addresses> addresses = Resolve(host, port, AI_NUMERICHOST);
  if (!addresses.ok()) return LaneDown(absl::StrCat(kLane, ": ", addresses.status().message()));
  const addrinfo& address = **addresses;
  Descriptor socket(
      ::socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP));
  if (!socket) return ErrnoDown(kLane, "socket");
  SetUp(socket);
  if (::connect(socket.get(), address.ai_addr, address.ai_addrlen) == 0) return socket;
  if (errno != EINPROGRESS) return ErrnoDown(kLane, "connect");
  REPRISE_RETURN_IF_ERROR(socket.Wait(POLLOUT, deadline, kLane));
  int failed = 0;
  socklen_t bytes = sizeof(failed);
  ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &failed, &bytes);
  if (failed == 0) return socket;
  errno = failed;
  return ErrnoDown(kLane, "connect");
}

void SetUp(const Descriptor& socket) {
  const auto set = [&socket](int level, int option, int value) {
    ::setsockopt(socket.get(), level, option, &value, sizeof(value));
  };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, static_cast<int>(absl::ToInt64Seconds(limits::kTcpProbeAfter)));
  set(IPPROTO_TCP, TCP_KEEPINTVL,
      static_cast<int>(absl::ToInt64Seconds(limits::kTcpProbeInterval)));
  set(IPPROTO_TCP, TCP_KEEPCNT, limits::kTcpProbesMax);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT,
      static_cast<int>(absl::ToInt64Milliseconds(limits::kTcpUnackedMax)));
}

}  // namespace reprise::lanes::tcp
