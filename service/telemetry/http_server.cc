#include "service/telemetry/http_server.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <list>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "proto/types/clock.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::telemetry {
namespace {

constexpr size_t kReadBytes = 4096;

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  bool ok() const { return fd_ >= 0; }

 private:
  int fd_;
};

// One client, from accept to close.
class Connection {
 public:
  enum class Next : uint8_t { kRead, kWrite, kClose };

  Connection(Descriptor socket, absl::Time now)
      : socket_(std::move(socket)), deadline_(now + limits::kStatusRequestTimeout) {}

  int fd() const { return socket_.get(); }
  absl::Time deadline() const { return deadline_; }
  short events() const { return state_ == State::kAnswering ? POLLOUT : POLLIN; }

  // Does what can be done without waiting. False: it is over.
  template <typename Answer>
  bool Go(absl::Time now, const Answer& answer) {
    if (state_ == State::kAsking && !Hear(now, answer)) return false;
    if (state_ == State::kAnswering && !Send(now)) return false;
    return state_ != State::kLeaving || Leave();
  }

 private:
  enum class State : uint8_t {
    kAsking,     // the request is not whole
    kAnswering,  // the answer is not all sent
    kLeaving     // until the client closes: closing first could cost it the answer's end
  };

  template <typename Answer>
  bool Hear(absl::Time now, const Answer& answer) {
    char buffer[kReadBytes];
    const ssize_t bytes = ::recv(fd(), buffer, sizeof(buffer), 0);
    if (bytes < 0) return errno == EAGAIN || errno == EINTR;
    if (bytes == 0) return false;
    heard_.append(buffer, static_cast<size_t>(bytes));
    const ParsedRequest parsed = ParseRequest(heard_);
    if (parsed.state == ParsedRequest::State::kIncomplete) return true;
    answer_ = AnswerTo(parsed, answer);
    heard_.clear();
    state_ = State::kAnswering;
    deadline_ = now + limits::kStatusResponseTimeout;
    return true;
  }

  template <typename Answer>
  static std::string AnswerTo(const ParsedRequest& parsed, const Answer& answer) {
    if (parsed.state == ParsedRequest::State::kMalformed) {
      return Encode({.status = 400, .body = "this is no HTTP/1 request\n"}, false);
    }
    if (parsed.state == ParsedRequest::State::kTooLarge) {
      return Encode({.status = 431, .body = "the request is too large\n"}, false);
    }
    const bool head = parsed.request.method == "HEAD";
    if (!head && parsed.request.method != "GET") {
      return Encode({.status = 405, .body = "only GET and HEAD are served here\n"}, false);
    }
    return Encode(answer(parsed.request), head);
  }

  bool Send(absl::Time now) {
    while (sent_ < answer_.size()) {
      const ssize_t bytes =
          ::send(fd(), answer_.data() + sent_, answer_.size() - sent_, MSG_NOSIGNAL);
      if (bytes < 0) return errno == EAGAIN || errno == EINTR;
      sent_ += static_cast<size_t>(bytes);
    }
    ::shutdown(fd(), SHUT_WR);
    state_ = State::kLeaving;
    deadline_ = now + limits::kStatusLingerMax;
    return true;
  }

  bool Leave() {
    char buffer[kReadBytes];
    const ssize_t bytes = ::recv(fd(), buffer, sizeof(buffer), 0);
    return bytes > 0 || (bytes < 0 && (errno == EAGAIN || errno == EINTR));
  }

  Descriptor socket_;
  State state_ = State::kAsking;
  absl::Time deadline_;
  std::string heard_;
  std::string answer_;
  size_t sent_ = 0;
};

class PollingServer final : public HttpServer {
 public:
  PollingServer(HttpServerOptions options, Descriptor listener, Descriptor wake,
                std::string address)
      : options_(std::move(options)),
        listener_(std::move(listener)),
        wake_(std::move(wake)),
        address_(std::move(address)),
        thread_([this] { Run(); }) {}
  ~PollingServer() override {
    ::eventfd_write(wake_.get(), 1);
    thread_.join();
  }
  const std::string& address() const override { return address_; }

 private:
  void Run() {
    while (true) {
      std::vector<pollfd> waiting = {{wake_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
      // A process out of descriptors would find the listener ready for ever.
      if (now() < accept_again_) waiting[1].events = 0;
      for (const Connection& connection : connections_) {
        waiting.push_back({connection.fd(), connection.events(), 0});
      }
      const timespec patience = absl::ToTimespec(Patience());
      ::ppoll(waiting.data(), waiting.size(), &patience, nullptr);
      if (waiting[0].revents != 0) return;
      Serve(waiting);
      if (waiting[1].revents != 0) Accept();
    }
  }

  // Until the first deadline.
  absl::Duration Patience() const {
    absl::Time first = now() + limits::kStatusRequestTimeout;
    for (const Connection& connection : connections_) {
      first = std::min(first, connection.deadline());
    }
    return std::max(first - now(), absl::ZeroDuration());
  }

  void Serve(const std::vector<pollfd>& waiting) {
    size_t i = 2;
    for (auto it = connections_.begin(); it != connections_.end(); ++i) {
      const bool goes_on =
          (waiting[i].revents == 0 || it->Go(now(), options_.answer)) && now() < it->deadline();
      it = goes_on ? std::next(it) : connections_.erase(it);
    }
  }

  void Accept() {
    // No more than fit, so that those of one burst do not push each other out unheard.
    for (size_t i = 0; i < limits::kStatusConnectionsMax; ++i) {
      Descriptor socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (!socket.ok()) {
        const bool none = errno == EAGAIN || errno == ECONNABORTED || errno == EINTR;
        if (!none) accept_again_ = now() + limits::kStatusLingerMax;
        return;
      }
      if (connections_.size() >= limits::kStatusConnectionsMax) connections_.pop_front();
      connections_.emplace_back(std::move(socket), now());
      // Most requests have come with their connection.
      if (!connections_.back().Go(now(), options_.answer)) connections_.pop_back();
    }
  }

  static absl::Time now() { return MonotonicClock().Now(); }

  const HttpServerOptions options_;
  const Descriptor listener_;
  const Descriptor wake_;
  const std::string address_;
  std::list<Connection> connections_;  // of the thread; the one that began first is first
  absl::Time accept_again_ = absl::InfinitePast();  // of the thread
  std::thread thread_;
};

absl::Status BadAddress(const std::string& listen) {
  return Refusal(absl::StatusCode::kInvalidArgument, "STATUS_ADDRESS",
                 absl::StrCat("--status-listen ", listen,
                              " is no host:port: write 127.0.0.1:9090, port 0 for a free one"));
}

struct Address {
  sockaddr_storage socket{};
  socklen_t bytes = 0;
};

absl::StatusOr<Address> Resolve(const std::string& listen, std::string host) {
  const std::string port = listen.substr(host.size() + 1);
  int number = 0;
  if (!absl::SimpleAtoi(port, &number) || number < 0 || number > 65535) return BadAddress(listen);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV | (host == "localhost" ? 0 : AI_NUMERICHOST);
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) return BadAddress(listen);
  Address address;
  std::memcpy(&address.socket, found->ai_addr, found->ai_addrlen);
  address.bytes = found->ai_addrlen;
  ::freeaddrinfo(found);
  return address;
}

bool IsLoopback(const Address& address) {
  if (address.socket.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address.socket);
    return ntohl(v4.sin_addr.s_addr) >> 24 == 127;
  }
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address.socket);
  return IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr);
}

std::string HostOf(const std::string& listen) {
  return listen.substr(0, listen.rfind(':'));
}

absl::StatusOr<Address> Permitted(const std::string& listen, bool public_address) {
  const size_t colon = listen.rfind(':');
  if (colon == std::string::npos || colon == 0) return BadAddress(listen);
  REPRISE_ASSIGN_OR_RETURN(Address address, Resolve(listen, HostOf(listen)));
  if (IsLoopback(address) || public_address) return address;
  return Refusal(absl::StatusCode::kFailedPrecondition, "STATUS_NOT_LOOPBACK",
                 absl::StrCat("--status-listen ", listen,
                              " is reachable from other machines: listen on 127.0.0.1, or add "
                              "--status-public where everybody may read the metrics"));
}

absl::StatusOr<Descriptor> Bind(const Address& address, const std::string& listen) {
  Descriptor listener(
      ::socket(address.socket.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const int on = 1;
  if (!listener.ok() ||
      ::setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
      ::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address.socket), address.bytes) !=
          0 ||
      ::listen(listener.get(), static_cast<int>(limits::kStatusConnectionsMax)) != 0) {
    return Refusal(absl::StatusCode::kUnavailable, "STATUS_LISTEN",
                   absl::StrCat("--status-listen ", listen, " cannot be bound (",
                                std::strerror(errno), "): is another process using the port?"));
  }
  return listener;
}

uint16_t PortOf(const Descriptor& listener) {
  Address bound;
  bound.bytes = sizeof(bound.socket);
  ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&bound.socket), &bound.bytes);
  return ntohs(bound.socket.ss_family == AF_INET
                   ? reinterpret_cast<const sockaddr_in&>(bound.socket).sin_port
                   : reinterpret_cast<const sockaddr_in6&>(bound.socket).sin6_port);
}

}  // namespace

absl::Status HttpServer::Check(const std::string& listen, bool public_address) {
  REPRISE_ASSIGN_OR_RETURN(const Address address, Permitted(listen, public_address));
  return Bind(address, listen).status();
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(HttpServerOptions options) {
  const std::string& listen = options.listen;
  REPRISE_ASSIGN_OR_RETURN(const Address address, Permitted(listen, options.public_address));
  REPRISE_ASSIGN_OR_RETURN(Descriptor listener, Bind(address, listen));
  Descriptor wake(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!wake.ok()) return absl::UnavailableError("the status port has no descriptor left");
  std::string bound = absl::StrCat(HostOf(listen), ":", PortOf(listener));
  return std::make_unique<PollingServer>(std::move(options), std::move(listener), std::move(wake),
                                         std::move(bound));
}

}  // namespace reprise::telemetry
