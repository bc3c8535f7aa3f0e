#include "cluster/lanes/tcp/tcp_server.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "cluster/lanes/lane_status.h"
#include "cluster/lanes/monotonic_deadline.h"
#include "cluster/lanes/tcp/data_socket.h"
#include "proto/types/clock.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::lanes {

// Runs the calls of one caller on a thread of its own.
class TcpServer::Connection {
 public:
  enum class State : uint8_t {
    kNew,    // has not said who it is
    kIdle,   // between calls
    kBusy,   // in the middle of one
    kEnded,  // or about to
  };

  Connection(TcpServer& server, Descriptor socket)
      : server_(server), socket_(std::move(socket)), thread_([this] { Run(); }) {}
  ~Connection() {
    Shutdown();
    thread_.join();
  }

  void Shutdown() {
    state_.store(State::kEnded);
    socket_.Shutdown();
  }
  State state() const { return state_.load(); }
  absl::Time since() const { return absl::FromUnixNanos(since_ns_.load()); }
  // The thread has nothing to do any more.
  bool finished() const { return finished_.load(); }
  AttachmentId attachment() const { return AttachmentId(attachment_.load()); }

 private:
  void Run() {
    // Why a conversation ended is the caller's to know; here it only ends.
    Converse().IgnoreError();
    Shutdown();
    finished_.store(true);
  }

  absl::Status Converse() {
    REPRISE_RETURN_IF_ERROR(TakeHello(MonotonicDeadline::After(limits::kTcpHelloTimeout)));
    tcp::CallServer calls({.host = server_.options_.host,
                           .guards = &server_.options_.guards,
                           .socket = &socket_,
                           .attachment = attachment()});
    while (Turn(State::kIdle)) {
      REPRISE_ASSIGN_OR_RETURN(
          const tcp::Header header,
          socket_.ReceiveHeader(MonotonicDeadline::After(limits::kTcpIdleMax)));
      if (!Turn(State::kBusy)) break;
      REPRISE_RETURN_IF_ERROR(calls.Serve(header));
    }
    return absl::OkStatus();
  }

  absl::Status TakeHello(MonotonicDeadline deadline) {
    std::optional<AttachmentId> owner;
    if (server_.tls_ != nullptr) {
      REPRISE_ASSIGN_OR_RETURN(owner, socket_.AcceptTls(*server_.tls_, deadline));
    }
    REPRISE_ASSIGN_OR_RETURN(const tcp::Hello hello, socket_.ReceiveOnly<tcp::Hello>(deadline));
    absl::Status known;
    // Set before it is asked for: an attachment that ends meanwhile either is not known any more,
    // or ends this connection.
    attachment_.store(hello.attachment.value);
    if (!server_.keys_.Knows(hello.attachment) ||
        (owner.has_value() && *owner != hello.attachment)) {
      known = Refusal(absl::StatusCode::kNotFound, "ATTACHMENT_UNKNOWN",
                      "the tcp lane does not know this attachment: attach anew");
    }
    REPRISE_RETURN_IF_ERROR(socket_.Send(tcp::Outcome{known}, deadline));
    return known;
  }

  // False when the connection was ended meanwhile.
  bool Turn(State next) {
    since_ns_.store(absl::ToUnixNanos(MonotonicClock().Now()));
    State now = state_.load();
    while (now != State::kEnded) {
      if (state_.compare_exchange_weak(now, next)) return true;
    }
    return false;
  }

  TcpServer& server_;
  tcp::DataSocket socket_;
  std::atomic<State> state_{State::kNew};
  std::atomic<int64_t> since_ns_{absl::ToUnixNanos(MonotonicClock().Now())};
  std::atomic<uint64_t> attachment_{0};
  std::atomic<bool> finished_{false};
  std::thread thread_;
};

absl::StatusOr<std::unique_ptr<TcpServer>> TcpServer::Create(Options options) {
  REPRISE_CHECK(options.host != nullptr);
  REPRISE_ASSIGN_OR_RETURN(tcp::Listeners listeners,
                           tcp::Listen(options.listen_host, options.port));
  return std::unique_ptr<TcpServer>(new TcpServer(std::move(options), std::move(listeners)));
}

TcpServer::TcpServer(Options options, tcp::Listeners listeners)
    : options_(std::move(options)),
      keys_(options_.encrypted),
      tls_(options_.encrypted ? tcp::TlsContext::ForShard(keys_) : nullptr),
      listeners_(std::move(listeners)),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      acceptor_([this] { AcceptLoop(); }) {}

TcpServer::~TcpServer() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  ::eventfd_write(wake_.get(), 1);
  acceptor_.join();
  std::list<std::unique_ptr<Connection>> connections;
  {
    absl::MutexLock lock(&mu_);
    connections.swap(connections_);
  }
  for (const auto& connection : connections) connection->Shutdown();
}

absl::StatusOr<std::optional<TcpKey>> TcpServer::Welcome(AttachmentId attachment) {
  return keys_.Add(attachment);
}

void TcpServer::EndAttachment(AttachmentId attachment) {
  keys_.Remove(attachment);
  absl::MutexLock lock(&mu_);
  for (const auto& connection : connections_) {
    if (connection->attachment() == attachment) connection->Shutdown();
  }
}

size_t TcpServer::connections() const {
  absl::MutexLock lock(&mu_);
  return static_cast<size_t>(
      std::count_if(connections_.begin(), connections_.end(),
                    [](const auto& connection) { return !connection->finished(); }));
}

void TcpServer::AcceptLoop() {
  const auto wait = absl::ToTimespec(limits::kPollMax);
  std::vector<pollfd> waiting{{wake_.get(), POLLIN, 0}};
  for (const Descriptor& listener : listeners_.sockets) {
    waiting.push_back({listener.get(), POLLIN, 0});
  }
  while (true) {
    ::ppoll(waiting.data(), waiting.size(), &wait, nullptr);
    {
      absl::MutexLock lock(&mu_);
      if (stopping_) return;
      connections_.remove_if([](const auto& connection) { return connection->finished(); });
    }
    for (const Descriptor& listener : listeners_.sockets) {
      Descriptor socket(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (socket) {
        Admit(std::move(socket));
      } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        // The waiting caller has a deadline and another lane. Waits without spinning.
        ::ppoll(waiting.data(), 1, &wait, nullptr);
      }
    }
  }
}

void TcpServer::Admit(Descriptor socket) {
  tcp::SendAtOnce(socket);
  absl::MutexLock lock(&mu_);
  const auto living = static_cast<size_t>(std::count_if(
      connections_.begin(), connections_.end(),
      [](const auto& connection) { return connection->state() != Connection::State::kEnded; }));
  if (stopping_ || (living >= options_.connections_max && !MakeRoom())) return;
  connections_.push_back(std::make_unique<Connection>(*this, std::move(socket)));
}

bool TcpServer::MakeRoom() {
  for (const Connection::State state : {Connection::State::kNew, Connection::State::kIdle}) {
    Connection* longest = nullptr;
    for (const auto& connection : connections_) {
      if (connection->state() != state) continue;
      if (longest == nullptr || connection->since() < longest->since()) longest = connection.get();
    }
    if (longest == nullptr) continue;
    longest->Shutdown();
    return true;
  }
  return false;
}

}  // namespace reprise::lanes
