// TLS 1.3 on a connection of the tcp lane, with the attachment's key as the pre-shared key (RFC
// 8446, 2.2) and an ephemeral Diffie-Hellman exchange: whoever finishes the handshake has the key,
// at both ends, and what was sent stays secret also from whoever learns the key later. OpenSSL does
// all of it.
//
// Invariants: nothing but TLS 1.3 with AES-128-GCM and a key that both ends have is spoken: a peer
// that offers a certificate instead is no peer, whoever signed it; after limits::kTcpTlsRekeyBytes
// a direction goes on under its next traffic key, far below what one key may encrypt (RFC 8446,
// 5.5). Thread safety: a context from any thread; a session from one thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cluster/lanes/descriptor.h"
#include "cluster/lanes/monotonic_deadline.h"
#include "cluster/lanes/tcp/socket_wait.h"
#include "cluster/lanes/tcp/tcp_keys.h"
#include "proto/types/ids.h"
#include "proto/types/limits.h"

struct ssl_st;
struct ssl_ctx_st;

namespace reprise::lanes::tcp {

struct TlsHandshake;

class TlsContext {
 public:
  // UNAVAILABLE (LANE_DOWN) where OpenSSL is set up without what this needs.
  static absl::StatusOr<std::unique_ptr<const TlsContext>> ForCaller();
  // REQUIRES: `keys` outlives the context.
  static absl::StatusOr<std::unique_ptr<const TlsContext>> ForShard(const TcpKeys& keys);
  ~TlsContext();

  ssl_ctx_st* get() const { return context_; }

 private:
  explicit TlsContext(ssl_ctx_st* context) : context_(context) {}
  ssl_ctx_st* const context_;
};

class TlsSession {
 public:
  // Shakes hands on a connected socket, which stays the caller's and outlives the session.
  // UNAVAILABLE (LANE_DOWN) when the peer is gone, speaks something else or has not the key;
  // DEADLINE_EXCEEDED.
  static absl::StatusOr<std::unique_ptr<TlsSession>> Connect(const TlsContext& context,
                                                             const Descriptor& socket,
                                                             const TcpKey& key,
                                                             MonotonicDeadline deadline);
  static absl::StatusOr<std::unique_ptr<TlsSession>> Accept(const TlsContext& context,
                                                            const Descriptor& socket,
                                                            MonotonicDeadline deadline);
  ~TlsSession();

  // Of a session that was accepted: whose key it is.
  AttachmentId attachment() const { return attachment_; }

  // Encrypts; what has gathered is sent now and then, and all of it by Flush. UNAVAILABLE
  // (LANE_DOWN) when the peer is gone or what came was changed on its way; DEADLINE_EXCEEDED.
  absl::Status Send(const Descriptor& socket, std::span<const uint8_t> bytes,
                    const SocketWait& wait);
  absl::Status Flush(const Descriptor& socket, const SocketWait& wait);
  absl::Status Receive(const Descriptor& socket, std::span<uint8_t> into, const SocketWait& wait);

  // Something has arrived that was not received yet.
  bool Pending() const;
  // Instead of limits::kTcpTlsRekeyBytes.
  void RekeyEvery(uint64_t bytes) { rekey_bytes_ = bytes; }

 private:
  explicit TlsSession(ssl_st* ssl) : ssl_(ssl) {}
  static absl::StatusOr<std::unique_ptr<TlsSession>> ShakeHands(const TlsContext& context,
                                                                const Descriptor& socket,
                                                                TlsHandshake& handshake,
                                                                MonotonicDeadline deadline);

  ssl_st* const ssl_;
  AttachmentId attachment_;
  std::vector<uint8_t> gathered_;  // encrypted and not sent
  uint64_t rekey_bytes_ = limits::kTcpTlsRekeyBytes;
  uint64_t sent_bytes_ = 0;  // under this key
};

}  // namespace reprise::lanes::tcp
