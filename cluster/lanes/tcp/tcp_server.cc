#include "cluster/lanes/tcp/tcp_server.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
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

  Connection(TcpServer& server, Descriptor socket) : server_(server), socket_(std::move(socket)) {}
  ~Connection() {
    Shutdown();
    if (thread_.joinable()) thread_.join();
  }

  // False where the process may have no more threads.
  bool Start() {
    try {
      thread_ = std::thread([this] { Run(); });
    } catch (const std::system_error&) {
      return false;
    }
    return true;
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
                           .attachment = attachment(),
                           .verbs = &server_.verbs_});
    while (state() != State::kEnded) {
      REPRISE_ASSIGN_OR_RETURN(
          const tcp::Header header,
          socket_.ReceiveHeader(MonotonicDeadline::After(limits::kTcpIdleMax)));
      if (!Turn(State::kBusy)) break;
      REPRISE_RETURN_IF_ERROR(calls.Serve(header));
      Turn(State::kIdle);
    }
    return absl::OkStatus();
  }

  absl::Status TakeHello(MonotonicDeadline deadline) {
    std::optional<AttachmentId> owner;
    if (server_.tls_ != nullptr) {
      REPRISE_ASSIGN_OR_RETURN(owner, socket_.AcceptTls(*server_.tls_, deadline));
    }
    REPRISE_ASSIGN_OR_RETURN(const tcp::Hello hello, socket_.ReceiveOnly<tcp::Hello>(deadline));
    // Set before it is asked for: an attachment that ends meanwhile either is not known any more,
    // or ends this connection.
    attachment_.store(hello.attachment.value);
    const absl::Status known = Known(hello.attachment, owner);
    // Before it is told, so that what it knows of this connection is so.
    if (known.ok()) Turn(State::kIdle);
    REPRISE_RETURN_IF_ERROR(socket_.Send(tcp::Outcome{known}, deadline));
    return known;
  }

  absl::Status Known(AttachmentId attachment, std::optional<AttachmentId> owner) const {
    const bool key_fits = !owner.has_value() || *owner == attachment;
    if (!key_fits || !server_.keys_.Knows(attachment)) {
      return Refusal(absl::StatusCode::kNotFound, "ATTACHMENT_UNKNOWN",
                     "the tcp lane does not know this attachment: attach anew");
    }
    if (server_.ConnectionsOf(attachment) <= limits::kTcpConnectionsPerAttachmentMax) {
      return absl::OkStatus();
    }
    return Refusal(absl::StatusCode::kResourceExhausted, "TCP_CONNECTIONS",
                   absl::StrCat("this attachment has more than kTcpConnectionsPerAttachmentMax = ",
                                limits::kTcpConnectionsPerAttachmentMax,
                                " connections: use those that it has"));
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
  std::unique_ptr<TcpServer> server(new TcpServer(std::move(options), std::move(listeners)));
  if (server->options_.encrypted) {
    REPRISE_ASSIGN_OR_RETURN(server->tls_, tcp::TlsContext::ForShard(server->keys_));
  }
  server->acceptor_ = std::thread([it = server.get()] { it->AcceptLoop(); });
  return server;
}

TcpServer::TcpServer(Options options, tcp::Listeners listeners)
    : options_(std::move(options)),
      keys_(options_.encrypted),
      listeners_(std::move(listeners)),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

TcpServer::~TcpServer() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  ::eventfd_write(wake_.get(), 1);
  if (acceptor_.joinable()) acceptor_.join();
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

void TcpServer::AnswerVerbs(VerbHost* host) {
  verbs_.To(host);
}

void TcpServer::VerbSwitch::To(VerbHost* host) {
  absl::MutexLock lock(&mu_);
  host_ = host;
}

absl::StatusOr<std::string> TcpServer::VerbSwitch::Answer(AttachmentId attachment, tcp::Verb verb,
                                                          absl::string_view request) {
  answered_.fetch_add(1, std::memory_order_relaxed);
  absl::ReaderMutexLock lock(&mu_);
  if (host_ != nullptr) return host_->Answer(attachment, verb, request);
  return Refusal(absl::StatusCode::kUnimplemented, "TCP_NO_VERBS",
                 "this port answers no verbs: ask over gRPC");
}

TcpServer::Use TcpServer::use() const {
  Use use{.verbs = verbs_.answered()};
  absl::MutexLock lock(&mu_);
  for (const auto& connection : connections_) {
    use.connections += connection->finished() ? 0 : 1;
    use.idle += connection->state() == Connection::State::kIdle ? 1 : 0;
  }
  return use;
}

size_t TcpServer::ConnectionsOf(AttachmentId attachment) const {
  absl::MutexLock lock(&mu_);
  return static_cast<size_t>(
      std::count_if(connections_.begin(), connections_.end(), [attachment](const auto& connection) {
        return connection->attachment() == attachment &&
               connection->state() != Connection::State::kEnded;
      }));
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
  tcp::SetUp(socket);
  absl::MutexLock lock(&mu_);
  const auto living = static_cast<size_t>(std::count_if(
      connections_.begin(), connections_.end(),
      [](const auto& connection) { return connection->state() != Connection::State::kEnded; }));
  if (stopping_ || (living >= options_.connections_max && !MakeRoom())) return;
  auto connection = std::make_unique<Connection>(*this, std::move(socket));
  // Without a thread it is closed: the caller has another lane.
  if (connection->Start()) connections_.push_back(std::move(connection));
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
