// mTLS for channels and servers of ours: who this process is, and which servers it believes.
//
// Invariants: a connection is made only between two ends that both show a certificate of a CA that
// the other believes; certificate files that change are taken up within kTlsReloadInterval, for
// connections made from then on.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/types/tls_options.h"
#include "proto/wire/certificate.h"

namespace reprise::wire {

class Credentials {
 public:
  // nullptr, which stands for plaintext everywhere, when `options` names no file. INVALID_ARGUMENT
  // as ReadIdentity, or for a server that is no SPIFFE id.
  static absl::StatusOr<std::shared_ptr<const Credentials>> Load(const TlsOptions& options);

  const std::shared_ptr<grpc::ChannelCredentials>& channel() const { return channel_; }
  const std::shared_ptr<grpc::ServerCredentials>& server() const { return server_; }
  // As the files said when they were loaded.
  const Identity& identity() const { return identity_; }
  // When the certificate that is in its file now ends; InfinitePast when it cannot be read.
  absl::Time Expires() const;

 private:
  Credentials(const TlsOptions& options, Identity identity);

  const TlsOptions options_;
  const Identity identity_;
  std::shared_ptr<grpc::ChannelCredentials> channel_;
  std::shared_ptr<grpc::ServerCredentials> server_;
};

// Expires of `credentials`, for whoever watches it; empty for nullptr.
std::function<absl::Time()> ExpiryOf(std::shared_ptr<const Credentials> credentials);

}  // namespace reprise::wire
