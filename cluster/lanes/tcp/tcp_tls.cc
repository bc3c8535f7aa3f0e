#include "cluster/lanes/tcp/tcp_tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>

#include "absl/strings/str_cat.h"
#include "cluster/lanes/lane_status.h"
#include "cluster/lanes/tcp/socket_wait.h"
#include "proto/types/status_macros.h"

namespace reprise::lanes::tcp {

// What a session knows while it shakes hands.
struct TlsHandshake {
  // Of one that connects.
  TcpKey key{};
  TcpKeyName name{};
  // Of one that is accepted, once its key was found.
  AttachmentId attachment;
};

namespace {

constexpr char kLane[] = "tcp lane";
constexpr char kCipher[] = "TLS_AES_128_GCM_SHA256";
constexpr std::array<unsigned char, 2> kCipherId = {0x13, 0x01};

// What OpenSSL has to say of the last failure.
absl::Status TlsDown(absl::string_view what) {
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  const char* const reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  return LaneDown(absl::StrCat(kLane, ": TLS: ", what, reason == nullptr ? "" : ": ",
                               reason == nullptr ? "" : reason));
}

// A session of TLS that begins with this key; the caller's.
SSL_SESSION* SessionOf(SSL* ssl, const TcpKey& key) {
  SSL_SESSION* session = SSL_SESSION_new();
  const SSL_CIPHER* cipher = SSL_CIPHER_find(ssl, kCipherId.data());
  if (session != nullptr && cipher != nullptr &&
      SSL_SESSION_set1_master_key(session, key.data(), key.size()) == 1 &&
      SSL_SESSION_set_cipher(session, cipher) == 1 &&
      SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) == 1) {
    return session;
  }
  SSL_SESSION_free(session);
  return nullptr;
}

int UseKey(SSL* ssl, const EVP_MD*, const unsigned char** name, size_t* name_bytes,
           SSL_SESSION** session) {
  const auto* const handshake = static_cast<const TlsHandshake*>(SSL_get_app_data(ssl));
  *session = SessionOf(ssl, handshake->key);
  *name = handshake->name.data();
  *name_bytes = handshake->name.size();
  return *session != nullptr ? 1 : 0;
}

// Without a session the handshake goes on without a key, and fails: the shard has no certificate
// here.
int FindKey(SSL* ssl, const unsigned char* name, size_t name_bytes, SSL_SESSION** session) {
  const auto* const keys = static_cast<const TcpKeys*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
  const auto found = keys->Find({name, name_bytes});
  *session = found.has_value() ? SessionOf(ssl, found->key) : nullptr;
  if (*session != nullptr) {
    static_cast<TlsHandshake*>(SSL_get_app_data(ssl))->attachment = found->attachment;
  }
  return 1;
}

// Where what SSL writes gathers: a BIO that appends to a vector.
int Gather(BIO* bio, const char* bytes, size_t count, size_t* taken) {
  auto* const to = static_cast<std::vector<uint8_t>*>(BIO_get_data(bio));
  // Of the vector's own type: else it is copied byte by byte.
  const auto* const from = reinterpret_cast<const uint8_t*>(bytes);
  to->insert(to->end(), from, from + count);
  *taken = count;
  return 1;
}

long ControlGatherer(BIO*, int command, long, void*) {
  return command == BIO_CTRL_FLUSH ? 1 : 0;
}

BIO* NewGatherer(std::vector<uint8_t>& into) {
  static BIO_METHOD* const method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "gatherer");
    REPRISE_CHECK(made != nullptr && BIO_meth_set_write_ex(made, Gather) == 1 &&
                  BIO_meth_set_ctrl(made, ControlGatherer) == 1);
    return made;
  }();
  BIO* const bio = BIO_new(method);
  if (bio == nullptr) return nullptr;
  BIO_set_data(bio, &into);
  BIO_set_init(bio, 1);
  return bio;
}

// nullptr where it cannot be set up so.
SSL_CTX* NewContext(const SSL_METHOD* method) {
  SSL_CTX* context = SSL_CTX_new(method);
  if (context == nullptr || SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1 ||
      SSL_CTX_set_ciphersuites(context, kCipher) != 1) {
    SSL_CTX_free(context);
    return nullptr;
  }
  // Every connection begins with the attachment's key, which ends with the attachment.
  SSL_CTX_set_num_tickets(context, 0);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_read_ahead(context, 1);
  SSL_CTX_set_default_read_buffer_len(context, limits::kTcpTlsBatchBytes);
  return context;
}

}  // namespace

absl::StatusOr<std::unique_ptr<const TlsContext>> TlsContext::ForCaller() {
  SSL_CTX* const context = NewContext(TLS_client_method());
  if (context == nullptr) return TlsDown("no context");
  std::unique_ptr<const TlsContext> made(new TlsContext(context));
  // No certificate is good instead of the key: no authority is believed that could have signed it.
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
  SSL_CTX_set_psk_use_session_callback(context, UseKey);
  return made;
}

absl::StatusOr<std::unique_ptr<const TlsContext>> TlsContext::ForShard(const TcpKeys& keys) {
  SSL_CTX* const context = NewContext(TLS_server_method());
  if (context == nullptr) return TlsDown("no context");
  std::unique_ptr<const TlsContext> made(new TlsContext(context));
  SSL_CTX_set_app_data(context, const_cast<TcpKeys*>(&keys));
  SSL_CTX_set_psk_find_session_callback(context, FindKey);
  return made;
}

TlsContext::~TlsContext() {
  SSL_CTX_free(context_);
}

absl::StatusOr<std::unique_ptr<TlsSession>> TlsSession::Connect(const TlsContext& context,
                                                                const Descriptor& socket,
                                                                const TcpKey& key,
                                                                MonotonicDeadline deadline) {
  TlsHandshake handshake{.key = key, .name = NameOf(key), .attachment = {}};
  return ShakeHands(context, socket, handshake, deadline);
}

absl::StatusOr<std::unique_ptr<TlsSession>> TlsSession::Accept(const TlsContext& context,
                                                               const Descriptor& socket,
                                                               MonotonicDeadline deadline) {
  TlsHandshake handshake;
  REPRISE_ASSIGN_OR_RETURN(std::unique_ptr<TlsSession> session,
                           ShakeHands(context, socket, handshake, deadline));
  session->attachment_ = handshake.attachment;
  return session;
}

absl::StatusOr<std::unique_ptr<TlsSession>> TlsSession::ShakeHands(const TlsContext& context,
                                                                   const Descriptor& socket,
                                                                   TlsHandshake& handshake,
                                                                   MonotonicDeadline deadline) {
  SSL* const ssl = SSL_new(context.get());
  if (ssl == nullptr) return TlsDown("no session");
  std::unique_ptr<TlsSession> session(new TlsSession(ssl));
  BIO* const in = BIO_new_socket(socket.get(), BIO_NOCLOSE);
  BIO* const out = NewGatherer(session->gathered_);
  if (in == nullptr || out == nullptr) {
    BIO_free(in);
    BIO_free(out);
    return TlsDown("no buffers");
  }
  SSL_set_bio(ssl, in, out);
  SSL_set_app_data(ssl, &handshake);
  SSL_is_server(ssl) == 1 ? SSL_set_accept_state(ssl) : SSL_set_connect_state(ssl);
  const SocketWait wait{.deadline = deadline};
  while (true) {
    REPRISE_RETURN_IF_ERROR(wait.Check());
    ERR_clear_error();
    const int done = SSL_do_handshake(ssl);
    const int error = SSL_get_error(ssl, done);
    const absl::Status failure =
        done == 1 || error == SSL_ERROR_WANT_READ ? absl::OkStatus() : TlsDown("handshake");
    // An alert says to the other end why.
    const absl::Status flushed = session->Flush(socket, wait);
    REPRISE_RETURN_IF_ERROR(failure);
    REPRISE_RETURN_IF_ERROR(flushed);
    if (done == 1) break;
    REPRISE_RETURN_IF_ERROR(wait.For(socket, POLLIN));
  }
  SSL_set_app_data(ssl, nullptr);
  // A handshake can be finished without the key, by certificates: not here.
  if (SSL_session_reused(ssl) != 1) return LaneDown(absl::StrCat(kLane, ": TLS without the key"));
  return session;
}

TlsSession::~TlsSession() {
  SSL_free(ssl_);
}

absl::Status TlsSession::Send(const Descriptor& socket, std::span<const uint8_t> bytes,
                              const SocketWait& wait) {
  while (!bytes.empty()) {
    if (sent_bytes_ >= rekey_bytes_) {
      sent_bytes_ = 0;
      if (SSL_key_update(ssl_, SSL_KEY_UPDATE_NOT_REQUESTED) != 1) return TlsDown("next key");
    }
    const size_t part = std::min<size_t>(bytes.size(), limits::kTcpTlsBatchBytes);
    size_t taken = 0;
    ERR_clear_error();
    if (SSL_write_ex(ssl_, bytes.data(), part, &taken) != 1) return TlsDown("send");
    bytes = bytes.subspan(taken);
    sent_bytes_ += taken;
    if (gathered_.size() >= limits::kTcpTlsBatchBytes) {
      REPRISE_RETURN_IF_ERROR(Flush(socket, wait));
    }
  }
  return absl::OkStatus();
}

absl::Status TlsSession::Flush(const Descriptor& socket, const SocketWait& wait) {
  for (size_t sent = 0; sent < gathered_.size();) {
    REPRISE_RETURN_IF_ERROR(wait.Check());
    const ssize_t n = ::send(socket.get(), gathered_.data() + sent, gathered_.size() - sent,
                             MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
      sent += static_cast<size_t>(n);
    } else if (n < 0 && WouldBlock()) {
      REPRISE_RETURN_IF_ERROR(wait.For(socket, POLLOUT));
    } else if (n < 0 && errno != EINTR) {
      return ErrnoDown(kLane, "send");
    }
  }
  gathered_.clear();
  return absl::OkStatus();
}

absl::Status TlsSession::Receive(const Descriptor& socket, std::span<uint8_t> into,
                                 const SocketWait& wait) {
  while (!into.empty()) {
    REPRISE_RETURN_IF_ERROR(wait.Check());
    size_t got = 0;
    ERR_clear_error();
    errno = 0;
    const int done = SSL_read_ex(ssl_, into.data(), into.size(), &got);
    if (done == 1) {
      into = into.subspan(got);
      continue;
    }
    const int error = SSL_get_error(ssl_, done);
    if (error == SSL_ERROR_WANT_READ) {
      REPRISE_RETURN_IF_ERROR(wait.For(socket, POLLIN));
    } else if (error == SSL_ERROR_ZERO_RETURN || (error == SSL_ERROR_SYSCALL && errno == 0)) {
      return LaneDown(absl::StrCat(kLane, ": the peer closed the connection"));
    } else if (error == SSL_ERROR_SYSCALL) {
      return ErrnoDown(kLane, "receive");
    } else {
      return TlsDown("receive");
    }
  }
  return absl::OkStatus();
}

bool TlsSession::Pending() const {
  return SSL_has_pending(ssl_) == 1;
}

}  // namespace reprise::lanes::tcp
